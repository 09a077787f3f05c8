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
	queued   time.Time
	attempts int
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

// constraints are the pod's own or, where it has none and something owns it, the
// cluster's defaults: softly over hosts (skew 3) and zones (skew 5), among pods
// of the same owner.
func (p *class) constraints(terms *terms) {
	for _, c := range p.sample.Spec.TopologySpreadConstraints {
		sel, err := metav1.LabelSelectorAsSelector(c.LabelSelector)
		if err != nil {
			continue // validated by the API server
		}
		for _, k := range c.MatchLabelKeys {
			if v, ok := p.sample.Labels[k]; ok && (c.LabelSelector == nil || !names(c.LabelSelector, k)) {
				if r, err := labels.NewRequirement(k, "in", []string{v}); err == nil {
					sel = sel.Add(*r)
				}
			}
		}
		s := spread{
			term: terms.get(c.TopologyKey, spreadOver(p.sample.Namespace, sel)), maxSkew: c.MaxSkew, minDomains: 1,
			hard: c.WhenUnsatisfiable == corev1.DoNotSchedule, self: sel.Matches(labels.Set(p.sample.Labels)),
			honorAffinity: c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor,
			honorTaints:   c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor,
		}
		if c.MinDomains != nil {
			s.minDomains = *c.MinDomains
		}
		p.spread = append(p.spread, s)
	}
	if len(p.sample.Spec.TopologySpreadConstraints) > 0 {
		return
	}
	sel := ownSelector(p.sample)
	if sel == nil {
		return
	}
	p.spreadDefault = true
	for _, d := range []struct {
		key  string
		skew int32
	}{{corev1.LabelHostname, 3}, {corev1.LabelTopologyZone, 5}} {
		p.spread = append(p.spread, spread{
			term: terms.get(d.key, spreadOver(p.sample.Namespace, sel)), maxSkew: d.skew, minDomains: 1, self: true, honorAffinity: true,
		})
	}
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

// ownSelector tells pods of the same owner: those with all of its labels. The
// template's labels are on every pod that one controller makes, so no Service,
// ReplicaSet or StatefulSet has to be looked up.
func ownSelector(obj *corev1.Pod) labels.Selector {
	owner := metav1.GetControllerOfNoCopy(obj)
	if owner == nil || owner.Kind != "ReplicaSet" && owner.Kind != "ReplicationController" && owner.Kind != "StatefulSet" {
		return nil
	}
	set := labels.Set{}
	for k, v := range obj.Labels {
		if !perPod[k] {
			set[k] = v
		}
	}
	if len(set) == 0 {
		return nil
	}
	return labels.SelectorFromSet(set)
}

// perPod labels differ between the pods of one owner.
var perPod = map[string]bool{
	"statefulset.kubernetes.io/pod-name": true, "apps.kubernetes.io/pod-index": true, "batch.kubernetes.io/job-completion-index": true,
}
