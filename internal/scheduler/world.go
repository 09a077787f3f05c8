package scheduler

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// world is everything that decisions are made from. It is not safe for
// concurrent use: one goroutine owns it.
//
// Nodes have slots, small numbers that counters are kept by. Each change of a
// node, or of the pods on one, is noted in a log, from which the boards learn
// which nodes they have to look at again.
type world struct {
	nodes   []*node // that have an object, by name
	byName  map[string]*node
	slots   []*node // nil = free
	free    []int32
	placed  map[string]*placed // by key of the pod
	classes classes
	terms   *terms
	topo    map[string]*topology // by topology key
	imaged  map[string]int       // on how many nodes an image is
	volumes volumes
	devices devices
	hopes   map[string]*hope // pods that wait for their victims to go, by key
	seed    uint64

	log        []int32 // slots that changed, oldest first
	logged     uint64  // how many were dropped from the front of log
	imageEpoch uint64
	clock      uint64 // decisions made
	boards     []*class
	config     *Configuration
	owners     owners
	said       map[string]*verdict // about lacking resources
	priorities map[int32]int       // how many placed pods have which
}

func newWorld(seed uint64, config *Configuration) *world {
	if config == nil {
		config = DefaultConfiguration()
	}
	return &world{
		config: config, owners: newOwners(), said: map[string]*verdict{}, priorities: map[int32]int{},
		byName: map[string]*node{}, placed: map[string]*placed{}, terms: newTerms(), imaged: map[string]int{},
		classes: classes{byID: map[string]*class{}}, topo: map[string]*topology{}, volumes: newVolumes(), devices: newDevices(),
		hopes: map[string]*hope{}, seed: seed,
	}
}

// note that a node has to be looked at again.
func (w *world) note(n *node) {
	w.log = append(w.log, n.slot)
	if len(w.log) > 1<<16 {
		half := len(w.log) / 2
		w.log = append(w.log[:0], w.log[half:]...)
		w.logged += uint64(half)
	}
}

func (w *world) changes() uint64 { return w.logged + uint64(len(w.log)) }

func (w *world) nodeNamed(name string) *node {
	n := w.byName[name]
	if n != nil {
		return n
	}
	n = newNode(name)
	if k := len(w.free); k > 0 {
		n.slot, w.free = w.free[k-1], w.free[:k-1]
		w.slots[n.slot] = n
	} else {
		n.slot = int32(len(w.slots))
		w.slots = append(w.slots, n)
	}
	n.tie = mix(w.seed, name)
	w.byName[name] = n
	return n
}

func (w *world) drop(n *node) {
	delete(w.byName, n.name)
	w.slots[n.slot] = nil
	w.free = append(w.free, n.slot)
	w.note(n)
}

// setNode takes in a new or changed Node.
func (w *world) setNode(obj *corev1.Node) {
	n := w.nodeNamed(obj.Name)
	fresh := n.obj == nil
	if fresh {
		at, _ := slices.BinarySearchFunc(w.nodes, obj.Name, func(n *node, name string) int { return strings.Compare(n.name, name) })
		w.nodes = slices.Insert(w.nodes, at, n)
	} else if changed(n.obj, obj) == 0 && sameImages(n.obj, obj) {
		n.obj = obj
		return
	}
	if fresh || !sameImages(n.obj, obj) {
		w.countImages(n, -1)
		n.setImages(obj)
		w.countImages(n, 1)
	}
	if !fresh && !sameLabels(n.obj.Labels, obj.Labels) {
		w.countLabels(n.obj.Labels, -1)
		w.countLabels(obj.Labels, 1)
	} else if fresh {
		w.countLabels(obj.Labels, 1)
	}
	n.set(obj)
	if fresh {
		w.countNode(n, 1)
	}
	w.note(n)
}

// removeNode forgets a Node; its pods stay known until they are gone, too.
func (w *world) removeNode(name string) {
	n := w.byName[name]
	if n == nil || n.obj == nil {
		return
	}
	w.countNode(n, -1)
	w.countImages(n, -1)
	w.countLabels(n.obj.Labels, -1)
	n.obj, n.images = nil, nil
	n.version++
	w.nodes = slices.DeleteFunc(w.nodes, func(x *node) bool { return x == n })
	w.note(n)
	if len(n.pods) == 0 {
		w.drop(n)
	}
}

func (w *world) countImages(n *node, by int) {
	w.imageEpoch++
	for name := range n.images {
		if w.imaged[name] += by; w.imaged[name] <= 0 {
			delete(w.imaged, name)
		}
	}
}

func sameLabels(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}

// place puts a pod on a node, bound or assumed.
func (w *world) place(p *pod, on string, assumed bool) {
	if w.placed[p.key] != nil {
		w.remove(p.key)
	}
	n := w.nodeNamed(on)
	pl := &placed{pod: p, on: on, assumed: assumed}
	w.placed[p.key], n.pods[p.key] = pl, pl
	n.count(p, 1)
	w.volumes.use(p, 1)
	w.priorities[p.priority]++
	if n.obj != nil {
		w.countPod(n, p, 1)
		w.note(n)
	}
}

// remove a pod from the node it is on.
func (w *world) remove(key string) {
	pl := w.placed[key]
	if pl == nil {
		return
	}
	delete(w.placed, key)
	n := w.byName[pl.on]
	delete(n.pods, key)
	n.count(pl.pod, -1)
	w.volumes.use(pl.pod, -1)
	if w.priorities[pl.priority]--; w.priorities[pl.priority] == 0 {
		delete(w.priorities, pl.priority)
	}
	if n.obj != nil {
		w.countPod(n, pl.pod, -1)
		w.note(n)
	} else if len(n.pods) == 0 {
		w.drop(n)
	}
}

// countNode counts all pods of a node in or out of the terms.
func (w *world) countNode(n *node, sign int64) {
	for _, pl := range n.pods {
		w.countPod(n, pl.pod, sign)
	}
}

// countPod keeps the counted terms, and who holds which term, up to date.
func (w *world) countPod(n *node, p *pod, sign int64) {
	for _, t := range w.terms.counting(p.class) {
		t.nodes = at(t.nodes, n.slot)
		t.nodes[n.slot] += int32(sign)
		t.total += int(sign)
	}
	hold := func(t *term, as int, weight int64) {
		t.holders[as] = at(t.holders[as], n.slot)
		t.holders[as][n.slot] += sign * weight
		before := t.held[as]
		t.held[as] += int(sign)
		if before == 0 || t.held[as] == 0 {
			w.terms.heldEpoch++
		}
	}
	for _, t := range p.anti {
		hold(t, holdsAnti, 1)
	}
	for _, t := range p.holds {
		hold(t, holdsAffine, 1)
	}
	for i := range p.preferAffine {
		hold(p.preferAffine[i].term, holdsPreferAffine, p.preferAffine[i].weight)
	}
	for i := range p.preferAnti {
		hold(p.preferAnti[i].term, holdsPreferAnti, p.preferAnti[i].weight)
	}
}

// at makes a slice long enough for an index.
func at[T any](s []T, slot int32) []T {
	if int(slot) < len(s) {
		return s
	}
	return append(s, make([]T, max(int(slot)+1-len(s), len(s)/2))...)
}

// count begins to count for a term: once through all pods, and with every change
// from then on.
func (w *world) count(t *term) *term {
	if t.counted {
		return t
	}
	t.counted, t.total, t.nodes = true, 0, make([]int32, len(w.slots))
	known := map[*class]bool{}
	for _, n := range w.nodes {
		for _, pl := range n.pods {
			yes, ok := known[pl.class]
			if !ok {
				yes = w.terms.matches(t, pl.sample)
				known[pl.class] = yes
			}
			if yes {
				t.nodes[n.slot]++
				t.total++
			}
		}
	}
	w.terms.epoch++
	return t
}

// setNamespace keeps the labels that namespace selectors look at.
func (w *world) setNamespace(name string, set labels.Set) { w.terms.setNamespace(name, set) }

// forget drops classes and terms that no pod in the world and none in the queue
// has: called now and then, so that what nobody asks for is not counted for ever.
func (w *world) forget(waiting func(func(*pod))) {
	kept, used := map[*class]bool{}, map[*term]bool{}
	mark := func(p *pod) {
		if !kept[p.class] {
			kept[p.class] = true
			p.class.terms(func(t *term) { used[t] = true })
		}
	}
	for _, pl := range w.placed {
		mark(pl.pod)
	}
	waiting(mark)
	for id, c := range w.classes.byID {
		if !kept[c] {
			delete(w.classes.byID, id)
		}
		if !kept[c] || w.clock-c.used > forgetAfter {
			c.board = nil
		}
	}
	w.boards = slices.DeleteFunc(w.boards, func(c *class) bool { return c.board == nil })
	before := len(w.terms.order)
	w.terms.order = slices.DeleteFunc(w.terms.order, func(t *term) bool {
		if used[t] {
			return false
		}
		delete(w.terms.byID, t.id)
		return true
	})
	if len(w.terms.order) != before {
		w.terms.epoch++
	}
}

// topology is what values a label of nodes has.
type topology struct {
	ids    map[string]int32
	nodes  []int32 // how many nodes have it, by id
	shared int     // values that more than one node has
	flips  uint64  // moves when shared becomes or ceases to be 0
}

// topology of a key, kept up to date once asked for.
func (w *world) topology(key string) *topology {
	t := w.topo[key]
	if t == nil {
		t = &topology{ids: map[string]int32{}}
		w.topo[key] = t
		for _, n := range w.nodes {
			if v, ok := n.obj.Labels[key]; ok {
				t.add(v, 1)
			}
		}
	}
	return t
}

func (t *topology) id(value string) int32 {
	id, ok := t.ids[value]
	if !ok {
		id = int32(len(t.nodes))
		t.ids[value] = id
		t.nodes = append(t.nodes, 0)
	}
	return id
}

func (t *topology) add(value string, by int32) {
	id := t.id(value)
	was := t.shared
	if t.nodes[id] > 1 {
		t.shared--
	}
	if t.nodes[id] += by; t.nodes[id] > 1 {
		t.shared++
	}
	if (was == 0) != (t.shared == 0) {
		t.flips++
	}
}

// own says that each node has a value of its own, as with hostnames: counts by
// value are counts by node.
func (t *topology) own() bool { return t.shared == 0 }

func (w *world) countLabels(set map[string]string, by int32) {
	for key, t := range w.topo {
		if v, ok := set[key]; ok {
			t.add(v, by)
		}
	}
}

// mix makes a number of a seed and a name (FNV-1a, then the finish of murmur3).
func mix(seed uint64, name string) uint64 {
	h := uint64(14695981039346656037) ^ seed*0x9E3779B97F4A7C15
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	return h
}
