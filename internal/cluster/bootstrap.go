package cluster

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/auth/policy"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/network/ingress"
)

// bootstrap puts the objects into the store that every cluster has. What is
// there stays as its owner left it, but for what follows from the Config. The
// namespaces come first: the rest lives in them.
func (c *Config) bootstrap(ctx context.Context, conn client.Conn, trust api.Object, port int) error {
	if err := ensure(ctx, conn, namespaces()); err != nil {
		return err
	}
	objs := append(priorityClasses(), nodeAccess()...)
	objs = append(objs, c.services(port)...)
	objs = append(objs, trust, ingress.Objects())
	if err := ensure(ctx, conn, objs); err != nil {
		return err
	}
	if err := c.ensureServiceCIDR(ctx, conn); err != nil {
		return err
	}
	return ensure(ctx, conn, policy.Objects())
}

// ensure the objects are there, many at once.
func ensure(ctx context.Context, conn client.Conn, objs []api.Object) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, obj := range objs {
		g.Go(func() error {
			if err := ensureOne(ctx, conn, obj); err != nil {
				return fmt.Errorf("%T %s/%s: %w", obj, obj.GetNamespace(), obj.GetName(), err)
			}
			return nil
		})
	}
	return g.Wait()
}

func ensureOne(ctx context.Context, conn client.Conn, want api.Object) error {
	kind, ok := conn.Catalog().Type(want)
	if !ok {
		return nil // this server does not serve it
	}
	have, err := conn.Get(ctx, kind, want.GetNamespace(), want.GetName())
	if apierrors.IsNotFound(err) {
		_, err := conn.Create(ctx, kind, want, client.WriteOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil // another server was faster
		}
		return err
	}
	if err != nil {
		return err
	}
	if changed := correct(have, want); changed != nil {
		_, err = conn.Update(ctx, kind, changed, client.WriteOptions{})
	}
	return err
}

// correct returns what of an object that is there has to be written, nil = nothing.
func correct(have, want api.Object) api.Object {
	switch w := want.(type) {
	case *rbacv1.ClusterRole, *rbacv1.ClusterRoleBinding, *rbacv1.Role, *rbacv1.RoleBinding:
		return policy.Merge(have, want)
	case *corev1.ConfigMap:
		h := have.(*corev1.ConfigMap)
		if equality.Semantic.DeepEqual(h.Data, w.Data) {
			return nil
		}
		n := h.DeepCopy()
		n.Data = w.Data
		return n
	case *corev1.Endpoints: //nolint:staticcheck // clients read it still
		h := have.(*corev1.Endpoints) //nolint:staticcheck
		if equality.Semantic.DeepEqual(h.Subsets, w.Subsets) {
			return nil
		}
		n := h.DeepCopy()
		n.Subsets = w.Subsets
		return n
	case *discoveryv1.EndpointSlice:
		h := have.(*discoveryv1.EndpointSlice)
		if equality.Semantic.DeepEqual(h.Endpoints, w.Endpoints) && equality.Semantic.DeepEqual(h.Ports, w.Ports) {
			return nil
		}
		n := h.DeepCopy()
		n.Endpoints, n.Ports = w.Endpoints, w.Ports
		return n
	}
	return nil
}

func namespaces() (objs []api.Object) {
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease} {
		objs = append(objs, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return objs
}

func priorityClasses() []api.Object {
	class := func(name string, value int32, what string) api.Object {
		return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, Description: what}
	}
	return []api.Object{
		class("system-cluster-critical", 2000000000, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
		class("system-node-critical", 2000001000, "Used for system critical pods that must not be moved from their current node."),
	}
}

// nodeAccess lets nodes, and those that want to become one, use what Proa serves
// beside the Kubernetes API (see edge), and lets nodes read what the parts that
// serve their pods need: pod network, proxy, DNS and ingress act as the node.
func nodeAccess() []api.Object {
	role := func(name string, rules ...rbacv1.PolicyRule) api.Object {
		return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
	}
	bind := func(name, group string) api.Object {
		return &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: group}},
		}
	}
	rule := func(verb string, paths ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Verbs: strings.Fields(verb), NonResourceURLs: paths}
	}
	read := func(group string, resources ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Verbs: []string{"get", "list", "watch"}, APIGroups: []string{group}, Resources: resources}
	}
	joining := []rbacv1.PolicyRule{rule("get", paramsPath), rule("post", certificatePath)}
	return []api.Object{
		role("proa:joining", joining...),
		bind("proa:joining", "system:bootstrappers"),
		role("proa:node", append(joining, rule("get head", "/v2/*"), rule("get", "/proa/v1/images/*"), rule("post", "/proa/v1/images/has"),
			read("", "nodes", "services", "namespaces"), read("discovery.k8s.io", "endpointslices"),
			read("networking.k8s.io", "ingresses", "ingressclasses"))...),
		bind("proa:node", request.Nodes),
	}
}

// services are the API itself; its endpoints are this server's.
func (c *Config) services(port int) []api.Object {
	s := c.Server
	meta := metav1.ObjectMeta{
		Name: "kubernetes", Namespace: metav1.NamespaceDefault,
		Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"},
	}
	mirrored := meta
	mirrored.Labels = map[string]string{"endpointslice.kubernetes.io/skip-mirror": "true"}
	slice := meta
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: "kubernetes"}
	family, addressType := corev1.IPv4Protocol, discoveryv1.AddressTypeIPv4
	if s.AdvertiseAddress.Is6() {
		family, addressType = corev1.IPv6Protocol, discoveryv1.AddressTypeIPv6
	}
	single := corev1.IPFamilyPolicySingleStack
	all := []api.Object{
		&corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
			ClusterIP: nth(s.ServiceCIDRs[0], 1).String(), IPFamilies: []corev1.IPFamily{family}, IPFamilyPolicy: &single,
			Ports: []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt(port)}},
		}},
	}
	if s.AdvertiseAddress.IsLoopback() {
		return all // no pod can reach the API there
	}
	ip := s.AdvertiseAddress.String()
	return append(all,
		&corev1.Endpoints{ObjectMeta: mirrored, Subsets: []corev1.EndpointSubset{{ //nolint:staticcheck // clients read it still
			Addresses: []corev1.EndpointAddress{{IP: ip}},
			Ports:     []corev1.EndpointPort{{Name: "https", Port: int32(port), Protocol: corev1.ProtocolTCP}},
		}}},
		&discoveryv1.EndpointSlice{
			ObjectMeta: slice, AddressType: addressType,
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: ptr(true)}}},
			Ports:     []discoveryv1.EndpointPort{{Name: ptr("https"), Port: ptr(int32(port)), Protocol: ptr(corev1.ProtocolTCP)}},
		})
}

func ptr[T any](v T) *T { return &v }
