package scheduler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	restclient "k8s.io/client-go/rest"
	configv1 "k8s.io/kube-scheduler/config/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
)

// Extender is a service that has a say in decisions, by HTTP: it filters and
// scores nodes, chooses among victims, binds.
type Extender struct {
	url                         string
	filter, prioritize, preempt string // verbs, "" = it does not
	bind                        string
	weight                      int64
	namesOnly                   bool // it knows the nodes by their names
	ignorable                   bool // what it does is not needed
	managed                     sets.Set[corev1.ResourceName]
	client                      *http.Client
}

func (r *reader) extenders(list []configv1.Extender, at *field.Path) {
	seen, binds := sets.New[string](), 0
	for i := range list {
		c, p := &list[i], at.Index(i)
		if c.PrioritizeVerb != "" && c.Weight <= 0 {
			r.invalid(p.Child("weight"), c.Weight, "must have a positive weight applied to it")
		}
		if c.URLPrefix == "" {
			r.errs = append(r.errs, field.Required(p.Child("urlPrefix"), "the address of the extender"))
		}
		if c.BindVerb != "" {
			if binds++; binds > 1 {
				r.invalid(p.Child("bindVerb"), c.BindVerb, "only one extender can implement bind")
			}
		}
		for j, m := range c.ManagedResources {
			name := p.Child("managedResources").Index(j).Child("name")
			for _, msg := range validation.IsQualifiedName(m.Name) {
				r.invalid(name, m.Name, msg)
			}
			if !extendedResource(corev1.ResourceName(m.Name)) {
				r.invalid(name, m.Name, "is an invalid extended resource name")
			}
			if seen.Has(m.Name) {
				r.invalid(name, m.Name, "duplicate extender managed resource name")
			}
			seen.Insert(m.Name)
		}
		e, err := newExtender(c)
		if err != nil {
			r.invalid(p.Child("tlsConfig"), field.OmitValueType{}, err.Error())
			continue
		}
		r.out.Extenders = append(r.out.Extenders, e)
		r.ignore(c)
	}
}

// ignore the resources that an extender looks after alone.
func (r *reader) ignore(c *configv1.Extender) {
	for _, m := range c.ManagedResources {
		for _, o := range r.out.Profiles {
			if m.IgnoredByScheduler {
				if o.ignored == nil {
					o.ignored = map[corev1.ResourceName]bool{}
				}
				o.ignored[corev1.ResourceName(m.Name)] = true
			}
		}
	}
}

func newExtender(c *configv1.Extender) (*Extender, error) {
	var cfg restclient.Config
	if t := c.TLSConfig; t != nil {
		cfg.TLSClientConfig = restclient.TLSClientConfig{
			Insecure: t.Insecure, ServerName: t.ServerName, CertFile: t.CertFile, KeyFile: t.KeyFile, CAFile: t.CAFile,
			CertData: t.CertData, KeyData: t.KeyData, CAData: t.CAData,
		}
	}
	if c.EnableHTTPS && cfg.CAFile == "" && len(cfg.CAData) == 0 {
		cfg.Insecure = true // as upstream
	}
	tls, err := restclient.TLSConfigFor(&cfg)
	if err != nil {
		return nil, err
	}
	e := &Extender{
		url: strings.TrimRight(c.URLPrefix, "/"), filter: c.FilterVerb, prioritize: c.PrioritizeVerb, preempt: c.PreemptVerb, bind: c.BindVerb,
		weight: c.Weight, namesOnly: c.NodeCacheCapable, ignorable: c.Ignorable, managed: sets.New[corev1.ResourceName](),
		client: &http.Client{
			Transport: utilnet.SetTransportDefaults(&http.Transport{TLSClientConfig: tls}),
			Timeout:   seconds(c.HTTPTimeout, 5*time.Second),
		},
	}
	for _, m := range c.ManagedResources {
		e.managed.Insert(corev1.ResourceName(m.Name))
	}
	return e, nil
}

// interested in a pod: it asks for a resource that the extender manages, or the
// extender manages none in particular.
func (e *Extender) interested(p *corev1.Pod) bool {
	if e.managed.Len() == 0 {
		return true
	}
	for _, list := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range list {
			for _, asked := range []corev1.ResourceList{list[i].Resources.Requests, list[i].Resources.Limits} {
				for name := range asked {
					if e.managed.Has(name) {
						return true
					}
				}
			}
		}
	}
	return false
}

func (e *Extender) call(ctx context.Context, verb string, args, result any) error {
	body, err := json.Marshal(args)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+"/"+verb, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("failed %v with extender at URL %v, code %v", verb, e.url+"/"+verb, resp.StatusCode)
	}
	return json.NewDecoder(resp.Body).Decode(result)
}

func (e *Extender) about(p *corev1.Pod, nodes []*node) extenderv1.ExtenderArgs {
	args := extenderv1.ExtenderArgs{Pod: p}
	if e.namesOnly {
		names := make([]string, len(nodes))
		for i, n := range nodes {
			names[i] = n.name
		}
		args.NodeNames = &names
		return args
	}
	args.Nodes = &corev1.NodeList{Items: make([]corev1.Node, len(nodes))}
	for i, n := range nodes {
		args.Nodes.Items[i] = *n.obj
	}
	return args
}

// refusals of an extender, by name of the node.
type refusals map[string]*verdict

// filterNodes says which of the nodes will do, and why others will not.
func (e *Extender) filterNodes(ctx context.Context, p *corev1.Pod, nodes []*node) ([]*node, refusals, error) {
	if e.filter == "" {
		return nodes, nil, nil
	}
	var result extenderv1.ExtenderFilterResult
	if err := e.call(ctx, e.filter, e.about(p, nodes), &result); err != nil {
		return nil, nil, err
	}
	if result.Error != "" {
		return nil, nil, errors.New(result.Error)
	}
	var names []string
	switch {
	case e.namesOnly && result.NodeNames != nil:
		names = *result.NodeNames
	case result.Nodes != nil:
		for i := range result.Nodes.Items {
			names = append(names, result.Nodes.Items[i].Name)
		}
	}
	given := make(map[string]*node, len(nodes))
	for _, n := range nodes {
		given[n.name] = n
	}
	var left []*node
	for _, name := range names {
		n := given[name]
		if n == nil {
			return nil, nil, fmt.Errorf("extender %q claims a filtered node %q which is not found in the input node list", e.url, name)
		}
		left = append(left, n)
	}
	why := refusals{}
	for name, text := range result.FailedNodes {
		why[name] = no(extended, text)
	}
	for name, text := range result.FailedAndUnresolvableNodes {
		why[name] = noFinal(extended, text)
	}
	return left, why, nil
}

// scores of nodes by name, as they count.
func (e *Extender) scores(ctx context.Context, p *corev1.Pod, nodes []*node) (map[string]int64, error) {
	if e.prioritize == "" {
		return nil, nil
	}
	var result extenderv1.HostPriorityList
	if err := e.call(ctx, e.prioritize, e.about(p, nodes), &result); err != nil {
		return nil, err
	}
	out := make(map[string]int64, len(result))
	for _, h := range result {
		out[h.Host] = h.Score * e.weight * (100 / extenderv1.MaxExtenderPriority)
	}
	return out, nil
}

// bindPod binds a pod in the scheduler's place.
func (e *Extender) bindPod(ctx context.Context, p *corev1.Pod, node string) error {
	var result extenderv1.ExtenderBindingResult
	err := e.call(ctx, e.bind, &extenderv1.ExtenderBindingArgs{PodName: p.Name, PodNamespace: p.Namespace, PodUID: p.UID, Node: node}, &result)
	if err == nil && result.Error != "" {
		err = errors.New(result.Error)
	}
	return err
}
