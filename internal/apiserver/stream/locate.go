package stream

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
)

// find an object of another kind for a request.
func find[T api.Object](p *Proxy, r *http.Request, q *verbs.Request, like T, namespace, name string) (T, error) {
	var none T
	k, ok := p.verbs.Catalog.Type(like)
	if !ok {
		return none, verbs.NoSuchPath()
	}
	item, err := p.verbs.Get(r.Context(), &verbs.Request{Kind: api.Served{Kind: k}, Namespace: namespace, Name: name, User: q.User})
	if err != nil {
		return none, err
	}
	return item.Object.(T), nil
}

// kubelet of a node: where it listens.
func (p *Proxy) kubelet(r *http.Request, q *verbs.Request, name string) (*target, error) {
	node, err := find(p, r, q, &corev1.Node{}, "", name)
	if err != nil {
		return nil, err
	}
	at := KubeletAddress(node, p.cfg.Port)
	if at == "" {
		return nil, apierrors.NewInternalError(fmt.Errorf("no preferred addresses found; known addresses: %v", node.Status.Addresses))
	}
	return &target{url: url.URL{Scheme: "https", Host: at}, via: p.nodes, what: fmt.Sprintf("the kubelet of node %s at %s", name, at)}, nil
}

// usualPort of kubelets whose node does not say another.
const usualPort = 10250

// KubeletAddress is where the kubelet of a node listens, HOST:PORT, "" = the node
// has no address. port is for nodes that do not say; 0 = 10250.
func KubeletAddress(node *corev1.Node, port int) string {
	host := addressOf(node)
	if host == "" {
		return ""
	}
	if said := int(node.Status.DaemonEndpoints.KubeletEndpoint.Port); said != 0 {
		port = said
	} else if port == 0 {
		port = usualPort
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

func addressOf(node *corev1.Node) string {
	for _, t := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeHostName, corev1.NodeInternalDNS, corev1.NodeExternalIP, corev1.NodeExternalDNS} {
		for _, a := range node.Status.Addresses {
			if a.Type == t && a.Address != "" {
				return a.Address
			}
		}
	}
	return ""
}

// container that a request is about: the one it names, or the only one.
func container(pod *corev1.Pod, name string) (string, error) {
	var all []string
	for i := range pod.Spec.InitContainers {
		all = append(all, pod.Spec.InitContainers[i].Name)
	}
	for i := range pod.Spec.Containers {
		all = append(all, pod.Spec.Containers[i].Name)
	}
	for i := range pod.Spec.EphemeralContainers {
		all = append(all, pod.Spec.EphemeralContainers[i].Name)
	}
	if name == "" {
		switch len(pod.Spec.Containers) {
		case 1:
			return pod.Spec.Containers[0].Name, nil
		case 0:
			return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s", pod.Name))
		}
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: %v", pod.Name, all))
	}
	for _, c := range all {
		if c == name {
			return name, nil
		}
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
}

// logs of a container; nil when the pod is on no node yet.
func (p *Proxy) logs(r *http.Request, q *verbs.Request) (*target, error) {
	query := r.URL.Query()
	if err := checkLog(query, q.Name); err != nil {
		return nil, err
	}
	pod, err := find(p, r, q, &corev1.Pod{}, q.Namespace, q.Name)
	if err != nil {
		return nil, err
	}
	name, err := container(pod, query.Get("container"))
	if err != nil || pod.Spec.NodeName == "" {
		return nil, err
	}
	to, err := p.kubelet(r, q, pod.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	if yes(query, "insecureSkipTLSVerifyBackend") {
		to.via = p.pods
	}
	params := url.Values{}
	for _, flag := range []string{"follow", "previous", "timestamps"} {
		if yes(query, flag) {
			params.Set(flag, "true")
		}
	}
	for _, value := range []string{"sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"} {
		if v := query.Get(value); v != "" {
			params.Set(value, v)
		}
	}
	to.url.Path = "/containerLogs/" + pod.Namespace + "/" + pod.Name + "/" + name
	to.url.RawQuery = params.Encode()
	to.session = true
	return to, nil
}

// checkLog refuses options that make no sense.
func checkLog(query url.Values, pod string) error {
	var all field.ErrorList
	var bad error
	count := func(name string, least int64, why string) {
		text := query.Get(name)
		if text == "" {
			return
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			bad = apierrors.NewBadRequest(err.Error())
		} else if n < least {
			all = append(all, field.Invalid(field.NewPath(name), n, why))
		}
	}
	count("tailLines", 0, "must be greater than or equal to 0")
	count("limitBytes", 1, "must be greater than 0")
	count("sinceSeconds", 1, "must be greater than 0")
	if bad != nil {
		return bad
	}
	if query.Get("sinceSeconds") != "" && query.Get("sinceTime") != "" {
		all = append(all, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	}
	if t := query.Get("sinceTime"); t != "" {
		var at metav1.Time
		if err := at.UnmarshalQueryParameter(t); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	if len(all) > 0 {
		return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("PodLogOptions").GroupKind(), pod, all)
	}
	return nil
}

func yes(query url.Values, name string) bool {
	v, ok := query[name]
	return ok && v[0] != "false" && v[0] != "0"
}

// session with a container (exec, attach) or a pod (portforward), in the words
// of the kubelet's own API.
func (p *Proxy) session(r *http.Request, q *verbs.Request) (*target, error) {
	pod, err := find(p, r, q, &corev1.Pod{}, q.Namespace, q.Name)
	if err != nil {
		return nil, err
	}
	query, params := r.URL.Query(), url.Values{}
	path := "/portForward/" + pod.Namespace + "/" + pod.Name
	if q.Subresource == "portforward" {
		if ports := query["ports"]; len(ports) > 0 {
			params.Set("port", strings.Join(ports, ","))
		}
	} else {
		name, err := container(pod, query.Get("container"))
		if err != nil {
			return nil, err
		}
		path = "/" + q.Subresource + "/" + pod.Namespace + "/" + pod.Name + "/" + name
		for client, kubelet := range map[string]string{"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"} {
			if yes(query, client) {
				params.Set(kubelet, "1")
			}
		}
		if q.Subresource == "exec" {
			params["command"] = query["command"]
		}
	}
	if pod.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", q.Name))
	}
	to, err := p.kubelet(r, q, pod.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	to.url.Path, to.url.RawQuery, to.session = path, params.Encode(), true
	return to, nil
}

// pod that a proxy request is for: NAME, NAME:PORT or SCHEME:NAME:PORT.
func (p *Proxy) pod(r *http.Request, q *verbs.Request) (*target, error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(q.Name)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q", q.Name))
	}
	pod, err := find(p, r, q, &corev1.Pod{}, q.Namespace, name)
	if err != nil {
		return nil, err
	}
	for i := range pod.Spec.Containers {
		if ports := pod.Spec.Containers[i].Ports; port == "" && len(ports) > 0 {
			port = strconv.Itoa(int(ports[0].ContainerPort))
		}
	}
	ip := pod.Status.PodIP
	if len(pod.Status.PodIPs) > 0 {
		ip = pod.Status.PodIPs[0].IP
	}
	if addr, err := netip.ParseAddr(ip); err != nil || !addr.IsGlobalUnicast() {
		return nil, apierrors.NewBadRequest("address not allowed")
	}
	return p.plain(scheme, ip, port, "pod "+name), nil
}

func (p *Proxy) plain(scheme, host, port, what string) *target {
	at := host
	switch {
	case port != "":
		at = net.JoinHostPort(host, port)
	case strings.Contains(host, ":"):
		at = "[" + host + "]"
	}
	if scheme == "" {
		scheme = "http"
	}
	return &target{url: url.URL{Scheme: scheme, Host: at}, via: p.pods, what: what + " at " + at}
}

// node that a proxy request is for: its kubelet, or another port of it.
func (p *Proxy) node(r *http.Request, q *verbs.Request) (*target, error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(q.Name)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid node request %q", q.Name))
	}
	to, err := p.kubelet(r, q, name)
	if err != nil || port == "" || port == to.url.Port() {
		return to, err
	}
	if addr, err := netip.ParseAddr(to.url.Hostname()); err == nil && !addr.IsGlobalUnicast() {
		return nil, apierrors.NewBadRequest("address not allowed")
	}
	return p.plain(scheme, to.url.Hostname(), port, "node "+name), nil
}

// service that a proxy request is for: one of its ready endpoints, at random.
func (p *Proxy) service(r *http.Request, q *verbs.Request) (*target, error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(q.Name)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid service request %q", q.Name))
	}
	if number, err := strconv.ParseInt(port, 10, 32); err == nil {
		svc, err := find(p, r, q, &corev1.Service{}, q.Namespace, name)
		if err != nil {
			return nil, err
		}
		found := false
		for _, sp := range svc.Spec.Ports {
			if int64(sp.Port) == number {
				port, found = sp.Name, true
				break
			}
		}
		if !found {
			return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", number, name))
		}
	} else if _, err := find(p, r, q, &corev1.Service{}, q.Namespace, name); err != nil {
		return nil, err
	}
	at, err := p.endpoints(r, q, name, port)
	if err != nil {
		return nil, err
	}
	if len(at) == 0 {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", q.Name))
	}
	one := at[rand.IntN(len(at))]
	return p.plain(scheme, one.Addr().String(), strconv.Itoa(int(one.Port())), "service "+name), nil
}

// endpoints of a service's port that are ready.
func (p *Proxy) endpoints(r *http.Request, q *verbs.Request, service, port string) ([]netip.AddrPort, error) {
	k, ok := p.verbs.Catalog.Type(&discoveryv1.EndpointSlice{})
	if !ok {
		return nil, verbs.NoSuchPath()
	}
	sel, err := p.verbs.ParseSelector(api.Served{Kind: k}, discoveryv1.LabelServiceName+"="+service, "")
	if err != nil {
		return nil, err
	}
	list, err := p.verbs.List(r.Context(), &verbs.Request{Kind: api.Served{Kind: k}, Namespace: q.Namespace, User: q.User}, verbs.ListOptions{Selector: sel})
	if err != nil {
		return nil, err
	}
	var all []netip.AddrPort
	for _, item := range list.Items {
		slice := item.Object.(*discoveryv1.EndpointSlice)
		for _, sp := range slice.Ports {
			if sp.Port == nil || (sp.Name == nil && port != "") || (sp.Name != nil && *sp.Name != port) {
				continue
			}
			for i := range slice.Endpoints {
				e := &slice.Endpoints[i]
				if e.Conditions.Ready != nil && !*e.Conditions.Ready {
					continue
				}
				for _, a := range e.Addresses {
					if addr, err := netip.ParseAddr(a); err == nil {
						all = append(all, netip.AddrPortFrom(addr, uint16(*sp.Port)))
					}
				}
			}
		}
	}
	return all, nil
}
