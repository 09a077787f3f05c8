package scheduler

import (
	"encoding/binary"
	"maps"
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

	requests              resources
	cpu, memory           int64 // as counted for scores: with defaults for what was not asked for
	scoreCPU, scoreMemory int64 // the same of a pod that may come
	ports                 []hostPort
	images                []string
	containers            int
	claims                []claimUse
	disks                 []disk
	features              features // that the node has to have
	devices               bool     // the pods have resource claims, each its own
	extended              []corev1.ResourceName

	required  *nodeaffinity.RequiredNodeAffinity // nil = any node
	only      map[string]bool                    // names of nodes that it can be at all, nil = any
	preferred *nodeaffinity.PreferredSchedulingTerms

	affinity      []*term // required, each counting pods that match all of them
	holds         []*term // required, each for itself: what others are asked by
	anti          []*term // required
	preferAffine  []weighted
	preferAnti    []weighted
	spread        []spread
	spreadDefault bool   // the constraints are the profile's, not the pod's, …
	group         string // … and this selects the pods that they count
	grouped       uint64 // as of this state of the namespace's Services and controllers

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
	// Labels that differ between the pods of one owner make classes of their own
	// only once some selector looks at one of them.
	apart bool
}

func (w *world) classOf(obj *corev1.Pod) *class {
	w.classes.buf = w.classes.idOf(w.classes.buf[:0], obj)
	if c, ok := w.classes.byID[string(w.classes.buf)]; ok {
		return c
	}
	c := newClass(obj, w.config.profile(obj.Spec.SchedulerName), w.terms)
	c.id = string(w.classes.buf)
	w.classes.byID[c.id] = c
	w.regroup(c)
	if w.terms.perPod && !w.classes.apart {
		w.setApart()
		return w.classOf(obj)
	}
	return c
}

// setApart makes the classes anew, now that labels of single pods count.
func (w *world) setApart() {
	w.classes.apart = true
	clear(w.classes.byID)
	for _, c := range w.boards {
		c.board = nil
	}
	w.boards = w.boards[:0]
	for _, pl := range w.placed {
		pl.class = w.classOf(pl.obj)
	}
	for _, h := range w.hopes {
		h.class = w.classOf(h.obj)
	}
}

// perPod labels differ between the pods of one owner.
func perPod(label string) bool {
	switch label {
	case "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "batch.kubernetes.io/job-completion-index":
		return true
	}
	return false
}

// idOf writes down everything that newClass reads.
func (cs *classes) idOf(b []byte, obj *corev1.Pod) []byte {
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
			if cs.apart || !perPod(k) {
				keys = append(keys, k)
			}
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
		size := m.Size()
		b = binary.AppendUvarint(b, uint64(size))
		at := len(b)
		b = slices.Grow(b, size)[:at+size]
		_, _ = m.MarshalToSizedBuffer(b[at:]) // there is room for it
	}
	s := &obj.Spec
	str(s.SchedulerName)
	str(obj.Namespace)
	set(obj.Labels)
	str(ownerKey(obj))
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
			if restartsAll(c) {
				num(1)
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
	if s.HostNetwork && s.HostUsers != nil && !*s.HostUsers {
		num(2)
	}
	if len(s.ResourceClaims) > 0 {
		num(3)
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

func newClass(obj *corev1.Pod, o *Options, terms *terms) *class {
	c := &class{sample: obj, options: o, features: featuresOf(obj)}
	if obj.Spec.Priority != nil {
		c.priority = *obj.Spec.Priority
	}
	c.asks(obj)
	c.devices, c.extended = len(obj.Spec.ResourceClaims) > 0, c.extendedResources()
	c.hostPorts()
	for _, list := range [][]corev1.Container{obj.Spec.InitContainers, obj.Spec.Containers} {
		for i := range list {
			c.images = append(c.images, normalImage(list[i].Image))
		}
	}
	c.containers = len(c.images)
	for i := range obj.Spec.Volumes {
		if v := obj.Spec.Volumes[i].Image; v != nil {
			c.images = append(c.images, normalImage(v.Reference))
		}
	}
	c.volumes()
	c.nodes()
	if a := obj.Spec.Affinity; a != nil && a.PodAffinity != nil {
		c.holds = terms.all(obj, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		c.affinity = terms.together(c.holds)
		c.preferAffine = terms.weighted(obj, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := obj.Spec.Affinity; a != nil && a.PodAntiAffinity != nil {
		c.anti = terms.all(obj, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		c.preferAnti = terms.weighted(obj, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	c.constraints(terms, obj.Spec.TopologySpreadConstraints, nil)
	return c
}

// nodes that the pods ask for.
func (c *class) nodes() {
	obj := c.sample
	var a *corev1.NodeAffinity
	if obj.Spec.Affinity != nil {
		a = obj.Spec.Affinity.NodeAffinity
	}
	if len(obj.Spec.NodeSelector) > 0 || a != nil && a.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		req := nodeaffinity.GetRequiredNodeAffinity(obj)
		c.required = &req
	}
	if a != nil && a.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		c.only = named(a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms)
	}
	if a != nil && len(a.PreferredDuringSchedulingIgnoredDuringExecution) > 0 {
		// the API server has validated the terms
		c.preferred, _ = nodeaffinity.NewPreferredSchedulingTerms(a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

// named are the nodes that terms ask for by name; nil when one of them does not,
// empty when none can be.
func named(all []corev1.NodeSelectorTerm) map[string]bool {
	var names map[string]bool
	for _, t := range all {
		var these map[string]bool
		for _, f := range t.MatchFields {
			if f.Key != metav1.ObjectNameField || f.Operator != corev1.NodeSelectorOpIn {
				continue
			}
			next := map[string]bool{}
			for _, v := range f.Values {
				if these == nil || these[v] {
					next[v] = true
				}
			}
			these = next
		}
		if these == nil {
			return nil
		}
		if names == nil {
			names = map[string]bool{}
		}
		maps.Copy(names, these)
	}
	return names
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
