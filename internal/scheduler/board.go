package scheduler

import (
	"encoding/binary"
	"slices"
)

// board is what is known of every node for pods of one class: whether they fit,
// and how well. It follows the world's log, so that a decision costs as much as
// changed since the last one, and not as much as there are nodes.
//
// Nodes that only differ in how much room they have share a cell: same domains
// (or, where each node is a domain of its own, same counts), same taints and
// preferences. Everything that depends on other nodes (spreading, affinity between
// pods, normalised scores) is the same for a whole cell; what depends on the node
// alone orders the nodes of a cell in a heap, of which only the top matters.
type board struct {
	w *world
	c *class

	seen                          uint64 // of the log
	heldEpoch, imageEpoch, stored uint64
	mapped                        uint64 // of devices
	flips                         uint64
	locallyImaged                 bool

	held  []heldFor
	want  *want // storage
	dims  []dim
	lines []line          // by slot
	few   map[int32]*line // instead, when the pods can only be on nodes they name
	cells map[string]*cell
	order []*cell // as they came
	key   []byte
	why   *refusal // of the last decision, while nothing changes
}

// line is a node on a board.
type line struct {
	node    *node
	version uint64
	still   *verdict // of filters that look at the Node object alone
	now     *verdict // of filters that look at the node's pods, too
	taints  int64    // soft ones that are not tolerated
	prefer  int64    // node affinity
	score   int64    // of the node alone
	free    float64  // what is left, finer than the score says
	cell    *cell    // nil = does not fit
	at      int      // in the cell's heap
}

// line of a slot; nil when the board holds nothing about it.
func (b *board) line(slot int32) *line {
	if b.few != nil {
		return b.few[slot]
	}
	return &b.lines[slot]
}

// size for the sum that boards may have.
func (b *board) size() int {
	if b.few != nil {
		return len(b.few)
	}
	return len(b.lines)
}

// sync takes over what changed since the board was last asked.
func (b *board) sync() {
	w := b.w
	if b.dims == nil || b.seen < w.logged || b.heldElse() || b.flips != b.flipsNow() ||
		(len(b.c.claims) > 0 && b.stored != w.volumes.epoch) || (len(b.c.extended) > 0 && b.mapped != w.devices.mapped) || b.imageEpoch != w.imageEpoch && (b.locallyImaged || b.anyImage()) || b.uncounted() {
		b.build()
		return
	}
	b.imageEpoch = w.imageEpoch
	for _, slot := range w.log[b.seen-w.logged:] {
		if b.few != nil && !b.concerns(slot) {
			b.why = nil
			continue
		}
		b.look(slot)
		b.why = nil
	}
	b.seen = w.changes()
}

// concerns: a slot has, or had, a node that the pods can be on.
func (b *board) concerns(slot int32) bool {
	n := b.w.slots[slot]
	return b.few[slot] != nil || n != nil && b.c.only[n.name]
}

func (b *board) flipsNow() (sum uint64) {
	for i := range b.dims {
		sum += b.dims[i].topo.flips
	}
	return sum
}

// heldElse: pods that are there say something else than they did.
func (b *board) heldElse() bool {
	if b.heldEpoch == b.w.terms.heldEpoch {
		return false
	}
	b.heldEpoch = b.w.terms.heldEpoch
	return !slices.Equal(b.held, b.holding())
}

func (b *board) anyImage() bool {
	for _, i := range b.c.images {
		if b.w.imaged[i] > 0 {
			return true
		}
	}
	return false
}

// uncounted: a term lost its counts (the labels of a namespace changed).
func (b *board) uncounted() bool {
	lost := false
	b.c.terms(func(t *term) { lost = lost || !t.counted })
	return lost
}

// build begins anew.
func (b *board) build() {
	w := b.w
	b.c.terms(func(t *term) { w.count(t) })
	b.heldEpoch, b.imageEpoch, b.stored = w.terms.heldEpoch, w.imageEpoch, w.volumes.epoch
	b.mapped = w.devices.mapped
	b.held = b.holding()
	b.locallyImaged = b.anyImage()
	b.want = w.wants(b.c)
	b.makeDims()
	b.flips = b.flipsNow()
	b.cells, b.order, b.why = map[string]*cell{}, nil, nil
	if b.c.only != nil && len(b.dims) == 0 && b.c.options.filters.has(nodeAffinity) {
		b.few, b.lines = make(map[int32]*line, len(b.c.only)), nil
		for name := range b.c.only {
			if n := w.byName[name]; n != nil && n.obj != nil {
				b.look(n.slot)
			}
		}
	} else {
		b.few, b.lines = nil, make([]line, len(w.slots))
		for _, n := range w.nodes {
			b.look(n.slot)
		}
	}
	b.seen = w.changes()
}

// look at a node again.
func (b *board) look(slot int32) {
	if b.few == nil {
		b.lines = at(b.lines, slot)
	} else if b.few[slot] == nil {
		b.few[slot] = &line{}
	}
	l := b.line(slot)
	n := b.w.slots[slot]
	if n != nil && n.obj == nil {
		n = nil
	}
	if l.node != n || n != nil && l.version != n.version {
		b.leave(l)
		for i := range b.dims {
			b.dims[i].forget(slot)
		}
		l.node = n
		if n == nil {
			delete(b.few, slot)
			return
		}
		l.version = n.version
		l.still = b.w.fitsNode(b.c, n)
		l.taints = int64(untolerated(b.c, n.soft))
		l.prefer = b.c.prefers(n)
		for i := range b.dims {
			b.dims[i].learn(b, n)
		}
	}
	if n == nil {
		return
	}
	for i := range b.dims {
		b.dims[i].update(slot)
	}
	l.now = l.still
	if l.now == nil {
		l.now = b.w.fitsPods(b.c, b.want, n)
	}
	if l.now != nil {
		b.leave(l)
		return
	}
	l.score, l.free = b.w.scoreNode(b.c, n)
	b.enter(slot, l)
}

// prefers a node by so much: node affinity, the pod's and the profile's.
func (c *class) prefers(n *node) (sum int64) {
	if c.preferred != nil {
		sum += c.preferred.Score(n.obj)
	}
	if p := c.options.addedPreferred; p != nil {
		sum += p.Score(n.obj)
	}
	return sum
}

func (b *board) leave(l *line) {
	if l.cell != nil {
		l.cell.remove(l.at)
		l.cell = nil
	}
}

// enter puts a node into the cell it belongs to.
func (b *board) enter(slot int32, l *line) {
	b.key = binary.AppendVarint(b.key[:0], l.taints)
	b.key = binary.AppendVarint(b.key, l.prefer)
	for i := range b.dims {
		d := &b.dims[i]
		if d.own && d.dom[slot] >= 0 {
			b.key = binary.AppendVarint(b.key, d.vals[slot])
		} else {
			b.key = binary.AppendVarint(b.key, -1<<40-int64(d.dom[slot]))
		}
	}
	c := b.cells[string(b.key)]
	if c == nil {
		c = &cell{b: b, dom: make([]int32, len(b.dims)), count: make([]int64, len(b.dims)), taints: l.taints, prefer: l.prefer}
		for i := range b.dims {
			c.dom[i], c.count[i] = b.dims[i].dom[slot], b.dims[i].vals[slot]
		}
		b.cells[string(b.key)] = c
		b.order = append(b.order, c)
		if len(b.order) > 64 && len(b.order) > 4*len(b.lines) {
			b.sweep()
		}
	}
	if l.cell == c {
		c.fix(l.at)
		return
	}
	b.leave(l)
	l.cell = c
	c.add(slot)
}

// sweep away cells that are empty.
func (b *board) sweep() {
	kept := b.order[:0]
	for key, c := range b.cells {
		if len(c.heap) == 0 && c != b.order[len(b.order)-1] {
			delete(b.cells, key)
			c.b = nil
		}
	}
	for _, c := range b.order {
		if c.b != nil {
			kept = append(kept, c)
		}
	}
	b.order = kept
}
