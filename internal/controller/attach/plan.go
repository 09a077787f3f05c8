package attach

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/proa-dev/proa/internal/controller/owned"
)

// patience with a node that is not ready and says, or said, that it uses a disk:
// after that the disk is detached all the same.
const patience = 6 * time.Minute

// state of one disk.
type state struct {
	volume   string                                 // a PersistentVolume that names it, "" = there is none any more
	shared   bool                                   // it may be attached to several nodes at once
	pods     map[string][]*corev1.Pod               // that need it, by node
	attached map[string]*storagev1.VolumeAttachment // by node, however far they are
	nodes    map[string]node                        // those of attached; one that is not there is not in it
	unneeded map[string]time.Time                   // since when nobody needs it there
}

// node as far as it matters for a disk.
type node struct {
	ready, outOfService bool
	uses                bool // status.volumesInUse has the disk: it may be mounted
	reported            bool // status.volumesAttached has it: it may be mounted soon
}

type verb int

const (
	attach   verb = iota
	refuse        // it cannot be attached there now, for the reason why
	unreport      // the node is to be told that it is going away
	detach
	wait // it is looked at again at a time
)

// step is what is to be done about a disk on one node.
type step struct {
	verb
	node string
	why  func(p *corev1.Pod) string // of refuse: what a pod is told
	at   time.Time                  // of wait
}

// decide what is to be done about a disk. Detaching comes first: a disk that only
// one node may have goes from one to the other.
func decide(s *state, now time.Time) []step {
	var steps []step
	for _, name := range slices.Sorted(maps.Keys(s.attached)) {
		if s.attached[name].DeletionTimestamp != nil || len(s.pods[name]) > 0 {
			continue
		}
		n, there := s.nodes[name]
		late := s.unneeded[name].Add(patience)
		switch {
		case (n.uses || !there) && !n.outOfService && (n.ready || now.Before(late)):
			if !n.ready {
				steps = append(steps, step{verb: wait, node: name, at: late})
			}
		case n.reported:
			steps = append(steps, step{verb: unreport, node: name})
		default:
			steps = append(steps, step{verb: detach, node: name})
		}
	}
	taken := slices.Collect(maps.Keys(s.attached))
	for _, name := range s.wanting() {
		a, is := s.attached[name]
		switch {
		case is && a.DeletionTimestamp != nil:
			steps = append(steps, step{verb: refuse, node: name, why: func(*corev1.Pod) string {
				return fmt.Sprintf("AttachVolume.Attach failed for volume %q : volume attachment is being deleted", s.volume)
			}})
		case is:
		case !s.shared && len(taken) > 0:
			steps = append(steps, step{verb: refuse, node: name, why: s.multiAttach(name)})
		default:
			steps = append(steps, step{verb: attach, node: name})
			taken = append(taken, name)
		}
	}
	return steps
}

// wanting are the nodes with pods that need the disk, whoever came first first.
func (s *state) wanting() []string {
	first := func(name string) time.Time {
		return slices.MinFunc(s.pods[name], func(a, b *corev1.Pod) int {
			return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
		}).CreationTimestamp.Time
	}
	return slices.SortedFunc(maps.Keys(s.pods), func(a, b string) int {
		return cmp.Or(first(a).Compare(first(b)), cmp.Compare(a, b))
	})
}

// multiAttach says to a pod why its disk is not attached: by name who has it, if
// that is in its own namespace.
func (s *state) multiAttach(to string) func(*corev1.Pod) string {
	var have []*corev1.Pod
	for _, name := range slices.Sorted(maps.Keys(s.pods)) {
		if name != to && s.attached[name] != nil {
			have = append(have, s.pods[name]...)
		}
	}
	return func(p *corev1.Pod) string {
		var names []string
		elsewhere := 0
		for _, other := range have {
			if other.Namespace == p.Namespace {
				names = append(names, other.Name)
			} else {
				elsewhere++
			}
		}
		why := "Volume is already exclusively attached to one node and can't be attached to another"
		switch {
		case len(names) > 0 && elsewhere > 0:
			why = fmt.Sprintf("Volume is already used by pod(s) %s and %d pod(s) in different namespaces", strings.Join(names, ", "), elsewhere)
		case len(names) > 0:
			why = "Volume is already used by pod(s) " + strings.Join(names, ", ")
		case elsewhere > 0:
			why = fmt.Sprintf("Volume is already used by %d pod(s) in different namespaces", elsewhere)
		}
		return fmt.Sprintf("Multi-Attach error for volume %q %s", s.volume, why)
	}
}

// severalNodes says whether a volume may be attached to more than one. One that
// says nothing may: its driver knows.
func severalNodes(v *corev1.PersistentVolume) bool {
	return len(v.Spec.AccessModes) == 0 || slices.ContainsFunc(v.Spec.AccessModes, func(m corev1.PersistentVolumeAccessMode) bool {
		return m == corev1.ReadWriteMany || m == corev1.ReadOnlyMany
	})
}

// needs says whether a pod needs its volumes on its node.
func needs(p *corev1.Pod) bool {
	if p.Spec.NodeName == "" || owned.Ended(p) {
		return false
	}
	return p.DeletionTimestamp == nil || running(p.Status.InitContainerStatuses) || running(p.Status.ContainerStatuses) || running(p.Status.EphemeralContainerStatuses)
}

func running(all []corev1.ContainerStatus) bool {
	return slices.ContainsFunc(all, func(s corev1.ContainerStatus) bool { return s.State.Terminated == nil && s.State.Waiting == nil })
}

// nodeOf a Node as a disk sees it.
func nodeOf(n *corev1.Node, d disk) node {
	return node{
		ready:        ready(n),
		outOfService: outOfService(n),
		uses:         slices.Contains(n.Status.VolumesInUse, d.Name()),
		reported:     slices.ContainsFunc(n.Status.VolumesAttached, func(a corev1.AttachedVolume) bool { return a.Name == d.Name() }),
	}
}

func ready(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func outOfService(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}
