package scheduler

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// pod is a pod with what is the same for all of its class.
type pod struct {
	*class
	obj *corev1.Pod
	key string // namespace/name

	// while it waits
	queued time.Time
	tries  int   // that ended with no node for it
	errors int   // since, that ended with an error
	gated  bool  // its victims are being told to go
	missed bool  // something happened meanwhile
	need   *need // of devices, as of the last decision; nil = none
}

func (w *world) newPod(obj *corev1.Pod) *pod {
	return &pod{class: w.classOf(obj), obj: obj, key: obj.Namespace + "/" + obj.Name}
}

type hostPort struct {
	ip       string
	port     int32
	protocol corev1.Protocol
}

func (p *class) hostPorts() {
	add := func(list []corev1.Container) {
		for i := range list {
			for _, c := range list[i].Ports {
				if c.HostPort <= 0 {
					continue
				}
				h := hostPort{c.HostIP, c.HostPort, c.Protocol}
				if h.ip == "" {
					h.ip = "0.0.0.0"
				}
				if h.protocol == "" {
					h.protocol = corev1.ProtocolTCP
				}
				p.ports = append(p.ports, h)
			}
		}
	}
	add(p.sample.Spec.Containers)
	for i := range p.sample.Spec.InitContainers {
		if c := &p.sample.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(p.sample.Spec.InitContainers[i : i+1])
		}
	}
}

// constraints that spread the pods. group selects those that a profile's
// constraints count; nil: the constraints are the pod's own.
func (c *class) constraints(terms *terms, list []corev1.TopologySpreadConstraint, group labels.Selector) {
	obj := c.sample
	for _, t := range list {
		sel := group
		if sel == nil {
			var err error
			if sel, err = selectorOf(&t, obj.Labels); err != nil {
				continue // validated by the API server
			}
		}
		s := spread{
			term: terms.get(t.TopologyKey, spreadOver(obj.Namespace, sel)), maxSkew: t.MaxSkew, minDomains: 1,
			hard: t.WhenUnsatisfiable == corev1.DoNotSchedule, self: sel.Matches(labels.Set(obj.Labels)),
			honorAffinity: t.NodeAffinityPolicy == nil || *t.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor,
			honorTaints:   t.NodeTaintsPolicy != nil && *t.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor,
		}
		if t.MinDomains != nil {
			s.minDomains = *t.MinDomains
		}
		c.spread = append(c.spread, s)
	}
}

// selectorOf a constraint, with what matchLabelKeys add (KEP-3243).
func selectorOf(t *corev1.TopologySpreadConstraint, own map[string]string) (labels.Selector, error) {
	sel, err := metav1.LabelSelectorAsSelector(t.LabelSelector)
	if err != nil {
		return nil, err
	}
	for _, k := range t.MatchLabelKeys {
		if v, ok := own[k]; ok && (t.LabelSelector == nil || !names(t.LabelSelector, k)) {
			if r, err := labels.NewRequirement(k, "in", []string{v}); err == nil {
				sel = sel.Add(*r)
			}
		}
	}
	return sel, nil
}

func names(s *metav1.LabelSelector, key string) bool {
	if _, ok := s.MatchLabels[key]; ok {
		return true
	}
	for _, e := range s.MatchExpressions {
		if e.Key == key {
			return true
		}
	}
	return false
}
