package scheduler

import (
	"encoding/binary"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// class is all that decisions ask about a pod, worked out once for all pods that
// are alike in it: those of one template, as a rule.
type class struct {
	id       string
	sample   *corev1.Pod // one of its pods: labels, namespace, tolerations are the same for all
	priority int32
	options  *Options // of the scheduler that the pods ask for

	requests    resources
	cpu, memory int64 // as scored: with defaults for what was not asked for
	ports       []hostPort
	images      []string
	claims      []claimUse
	disks       []disk

	required  *nodeaffinity.RequiredNodeAffinity // nil = any node
	preferred *nodeaffinity.PreferredSchedulingTerms

	affinity      []*term // required, each counting pods that match all of them
	holds         []*term // required, each for itself: what others are asked by
	anti          []*term // required
	preferAffine  []weighted
	preferAnti    []weighted
	spread        []spread
	spreadDefault bool // the constraints are the cluster's, not the pod's

	counted      []*term // counted terms that these pods match, …
	countedEpoch uint64  // … as of this epoch of the terms
	board        *board
	used         uint64 // when the board was last asked, to drop the oldest
}

type weighted struct {
	*term
	weight int64
}

// spread is one topology spread constraint.
type spread struct {
	*term
	maxSkew, minDomains int32
	hard                bool // DoNotSchedule
	self                bool // the pod counts itself
	honorAffinity       bool
	honorTaints         bool
}

// classes shares them by what they say.
type classes struct {
	byID map[string]*class
	buf  []byte
}

func (w *world) classOf(obj *corev1.Pod) *class {
	w.classes.buf = classID(w.classes.buf[:0], obj)
	if c, ok := w.classes.byID[string(w.classes.buf)]; ok {
		return c
	}
	c := newClass(obj, w.terms)
	if c.options = w.options[obj.Spec.SchedulerName]; c.options == nil {
		c.options = &Options{}
	}
	c.id = string(w.classes.buf)
	w.classes.byID[c.id] = c
	return c
}

// classID writes down everything that newClass reads.
func classID(b []byte, obj *corev1.Pod) []byte {
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	num := func(n int64) { b = binary.AppendVarint(b, n) }
	set := func(m map[string]string) {
		num(int64(len(m)))
		var room [16]string
		keys := room[:0]
		for k := range m {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			str(k)
			str(m[k])
		}
	}
	list := func(l corev1.ResourceList) {
		num(int64(len(l)))
		var room [8]string
		names := room[:0]
		for k := range l {
			names = append(names, string(k))
		}
		slices.Sort(names)
		for _, k := range names {
			q := l[corev1.ResourceName(k)]
			str(k)
			num(q.Value())
			num(q.MilliValue())
		}
	}
	message := func(m interface {
		Size() int
		MarshalToSizedBuffer([]byte) (int, error)
	}) {
		size, at := m.Size(), len(b)
		b = binary.AppendUvarint(b, uint64(size))
		at = len(b)
		b = slices.Grow(b, size)[:at+size]
		m.MarshalToSizedBuffer(b[at:])
	}
	s := &obj.Spec
	str(s.SchedulerName)
	str(obj.Namespace)
	set(obj.Labels)
	owner := ""
	if o := metav1.GetControllerOfNoCopy(obj); o != nil {
		owner = o.Kind
	}
	str(owner)
	if obj.DeletionTimestamp != nil {
		str("deleting")
	}
	priority := int32(0)
	if s.Priority != nil {
		priority = *s.Priority
	}
	num(int64(priority))
	set(s.NodeSelector)
	list(s.Overhead)
	if s.Resources != nil {
		list(s.Resources.Requests)
	}
	for _, all := range [][]corev1.Container{s.InitContainers, s.Containers} {
		num(int64(len(all)))
		for i := range all {
			c := &all[i]
			str(c.Image)
			list(c.Resources.Requests)
			if c.RestartPolicy != nil {
				str(string(*c.RestartPolicy))
			}
			for _, p := range c.Ports {
				if p.HostPort > 0 {
					num(int64(p.HostPort))
					str(string(p.Protocol))
					str(p.HostIP)
				}
			}
		}
	}
	if s.Affinity != nil {
		message(s.Affinity)
	}
	num(int64(len(s.Tolerations)))
	for i := range s.Tolerations {
		message(&s.Tolerations[i])
	}
	num(int64(len(s.TopologySpreadConstraints)))
	for i := range s.TopologySpreadConstraints {
		message(&s.TopologySpreadConstraints[i])
	}
	for i := range s.Volumes {
		v := &s.Volumes[i]
		if v.Ephemeral != nil {
			str(obj.Name + "-" + v.Name)
		} else if counts(v) {
			message(v)
		}
	}
	return append(b, resized(obj)...)
}

// resized is what the statuses of containers add to what a pod asks for while it
// is resized in place.
func resized(obj *corev1.Pod) []byte {
	var b []byte
	for _, all := range [][]corev1.ContainerStatus{obj.Status.InitContainerStatuses, obj.Status.ContainerStatuses} {
		for i := range all {
			c := &all[i]
			for _, l := range []corev1.ResourceList{c.AllocatedResources, have(c)} {
				for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
					if q, ok := l[name]; ok {
						b = binary.AppendVarint(b, q.MilliValue())
					}
				}
			}
		}
	}
	if r := obj.Status.Resources; r != nil {
		b = append(b, r.String()...)
	}
	return b
}

func have(c *corev1.ContainerStatus) corev1.ResourceList {
	if c.Resources == nil {
		return nil
	}
	return c.Resources.Requests
}

func newClass(obj *corev1.Pod, terms *terms) *class {
	c := &class{sample: obj}
	if obj.Spec.Priority != nil {
		c.priority = *obj.Spec.Priority
	}
	c.requests, c.cpu, c.memory = requests(obj)
	c.hostPorts()
	for _, list := range [][]corev1.Container{obj.Spec.InitContainers, obj.Spec.Containers} {
		for i := range list {
			c.images = append(c.images, normalImage(list[i].Image))
		}
	}
	c.volumes()
	a := obj.Spec.Affinity
	if len(obj.Spec.NodeSelector) > 0 || a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		req := nodeaffinity.GetRequiredNodeAffinity(obj)
		c.required = &req
	}
	if a != nil && a.NodeAffinity != nil && len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) > 0 {
		// the API server has validated the terms
		c.preferred, _ = nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a != nil && a.PodAffinity != nil {
		c.holds = terms.all(obj, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		c.affinity = terms.together(c.holds)
		c.preferAffine = terms.weighted(obj, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a != nil && a.PodAntiAffinity != nil {
		c.anti = terms.all(obj, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		c.preferAnti = terms.weighted(obj, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	c.constraints(terms)
	return c
}

// each term that the class holds.
func (c *class) terms(f func(*term)) {
	for _, l := range [][]*term{c.affinity, c.holds, c.anti} {
		for _, t := range l {
			f(t)
		}
	}
	for _, l := range [][]weighted{c.preferAffine, c.preferAnti} {
		for i := range l {
			f(l[i].term)
		}
	}
	for i := range c.spread {
		f(c.spread[i].term)
	}
}
