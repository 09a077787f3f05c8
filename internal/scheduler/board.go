package scheduler

import (
	"encoding/binary"
	"math"
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
	flips                         uint64
	locallyImaged                 bool

	held  []heldFor
	want  *want // storage
	dims  []dim
	lines []line // by slot
	cells map[string]*cell
	order []*cell // as they came
	key   []byte
	why   *refusal // of the last decision, while nothing changes
}

// line is a node on a board.
type line struct {
	node    *node
	version uint64
	still   verdict // of filters that look at the Node object alone
	now     verdict // of filters that look at the node's pods, too
	taints  int64   // soft ones that are not tolerated
	prefer  int64   // node affinity
	score   int64   // of the node alone
	free    float64 // what is left, finer than the score says
	cell    *cell   // nil = does not fit
	at      int     // in the cell's heap
}

// cell is nodes that only differ in themselves.
type cell struct {
	b      *board
	dom    []int32 // by dim; -1 = no such label
	count  []int64 // by dim, where each node is a domain of its own
	taints int64
	prefer int64
	heap   []int32 // slots, best first

	// for the decision at hand
	spread  int64
	pods    int64
	ignored bool
	grades  [4]int64 // 0 to 100, by what they are for
	total   int64
}

// What the grades of a cell are for.
const (
	gradeTaints = iota
	gradeAffinity
	gradeSpread
	gradePods
)

// sync takes over what changed since the board was last asked.
func (b *board) sync() {
	w := b.w
	if b.dims == nil || b.seen < w.logged || b.heldElse() || b.flips != b.flipsNow() ||
		(len(b.c.claims) > 0 && b.stored != w.volumes.epoch) || b.imageEpoch != w.imageEpoch && (b.locallyImaged || b.anyImage()) || b.uncounted() {
		b.build()
		return
	}
	b.imageEpoch = w.imageEpoch
	for _, slot := range w.log[b.seen-w.logged:] {
		b.look(slot)
		b.why = nil
	}
	b.seen = w.changes()
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
	b.held = b.holding()
	b.locallyImaged = b.anyImage()
	b.want = w.volumes.wants(b.c)
	b.makeDims()
	b.flips = b.flipsNow()
	b.lines = make([]line, len(w.slots))
	b.cells, b.order, b.why = map[string]*cell{}, nil, nil
	for _, n := range w.nodes {
		b.look(n.slot)
	}
	b.seen = w.changes()
}

// look at a node again.
func (b *board) look(slot int32) {
	b.lines = at(b.lines, slot)
	l := &b.lines[slot]
	n := b.w.slots[slot]
	if n != nil && n.obj == nil {
		n = nil
	}
	if l.node != n || n != nil && l.version != n.version {
		b.leave(slot, l)
		for i := range b.dims {
			b.dims[i].forget(slot)
		}
		l.node = n
		if n == nil {
			return
		}
		l.version = n.version
		l.still = b.w.fitsNode(b.c, n)
		l.taints = int64(untolerated(b.c, n.soft))
		l.prefer = 0
		if b.c.preferred != nil {
			l.prefer = b.c.preferred.Score(n.obj)
		}
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
	if l.now.ok() {
		l.now = b.w.fitsPods(b.c, b.want, n)
	}
	if !l.now.ok() {
		b.leave(slot, l)
		return
	}
	l.score, l.free = b.w.scoreNode(b.c, n)
	b.enter(slot, l)
}

func (b *board) leave(slot int32, l *line) {
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
	b.leave(slot, l)
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

// value of a dimension in a cell.
func (c *cell) value(i int) int64 {
	d := &c.b.dims[i]
	switch {
	case c.dom[i] < 0:
		return 0
	case d.own:
		return c.count[i]
	}
	return d.sums[c.dom[i]]
}

// pick the best node, not counting those to skip. It returns nil when none fits.
func (b *board) pick(skip map[int32]bool) (*node, int64) {
	cells, feasible := b.judge()
	if feasible == 0 {
		return nil, 0
	}
	if feasible > 1 {
		b.grade(cells, feasible)
	} else {
		for _, c := range cells {
			c.total = 0
		}
	}
	var best *line
	var bestTotal int64
	for _, c := range cells {
		top := c.top(skip)
		if top < 0 {
			continue
		}
		l := &b.lines[top]
		total := c.total + l.score
		if best == nil || total > bestTotal || total == bestTotal && b.before(l, best) {
			best, bestTotal = l, total
		}
	}
	if best == nil {
		return nil, 0
	}
	return best.node, bestTotal
}

// judge which cells fit, and how many nodes are in them.
func (b *board) judge() (cells []*cell, nodes int) {
	if b.want != nil && !b.want.rejected.ok() {
		return nil, 0
	}
	rules := b.rules()
	cells = b.order[:0:0]
	for _, c := range b.order {
		if len(c.heap) == 0 {
			continue
		}
		if v := rules.fits(c, 0); v.ok() {
			cells = append(cells, c)
			nodes += len(c.heap)
		}
	}
	return cells, nodes
}

// verdict on one node, as things stand.
func (b *board) verdict(slot int32) verdict {
	if b.want != nil && !b.want.rejected.ok() {
		return b.want.rejected
	}
	l := &b.lines[slot]
	if !l.now.ok() {
		return l.now
	}
	r := b.rules()
	return r.fits(nil, slot)
}

// grade the cells that fit: all scores that are not a node's alone.
func (b *board) grade(cells []*cell, feasible int) {
	o := b.c.options
	b.gradeSpread(cells, feasible)
	var mostTaints, mostPrefer int64
	lowest, highest := int64(math.MaxInt64), int64(math.MinInt64)
	for _, c := range cells {
		mostTaints, mostPrefer = max(mostTaints, c.taints), max(mostPrefer, c.prefer)
		c.pods = 0
		for i := range b.dims {
			if b.dims[i].what == isPreference {
				c.pods += c.value(i)
			}
		}
		lowest, highest = min(lowest, c.pods), max(highest, c.pods)
	}
	weights := [...]int64{
		gradeTaints: o.weight("TaintToleration", weightTaints), gradeAffinity: o.weight("NodeAffinity", weightAffinity),
		gradeSpread: o.weight("PodTopologySpread", weightSpread), gradePods: o.weight("InterPodAffinity", weightPods),
	}
	for _, c := range cells {
		c.grades = [...]int64{gradeTaints: 100, gradeSpread: c.spread, gradePods: 0}
		if mostTaints > 0 {
			c.grades[gradeTaints] -= 100 * c.taints / mostTaints
		}
		if mostPrefer > 0 {
			c.grades[gradeAffinity] = 100 * c.prefer / mostPrefer
		}
		if highest > lowest {
			c.grades[gradePods] = int64(100 * (float64(c.pods-lowest) / float64(highest-lowest)))
		}
		c.total = 0
		for i, g := range c.grades {
			c.total += weights[i] * g
		}
	}
}

// before says which of two nodes of one score is taken: the emptier one, then
// whichever the seed says.
func (b *board) before(x, y *line) bool {
	if x.score != y.score {
		return x.score > y.score
	}
	if x.free != y.free {
		return x.free > y.free
	}
	return x.node.tie < y.node.tie
}

func (c *cell) less(i, j int) bool {
	return c.b.before(&c.b.lines[c.heap[i]], &c.b.lines[c.heap[j]])
}

func (c *cell) swap(i, j int) {
	c.heap[i], c.heap[j] = c.heap[j], c.heap[i]
	c.b.lines[c.heap[i]].at, c.b.lines[c.heap[j]].at = i, j
}

func (c *cell) add(slot int32) {
	c.heap = append(c.heap, slot)
	c.b.lines[slot].at = len(c.heap) - 1
	c.up(len(c.heap) - 1)
}

func (c *cell) remove(i int) {
	last := len(c.heap) - 1
	if i != last {
		c.swap(i, last)
	}
	c.heap = c.heap[:last]
	if i != last {
		c.fix(i)
	}
}

func (c *cell) fix(i int) {
	if !c.down(i) {
		c.up(i)
	}
}

func (c *cell) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !c.less(i, parent) {
			return
		}
		c.swap(i, parent)
		i = parent
	}
}

func (c *cell) down(i int) bool {
	from := i
	for {
		child := 2*i + 1
		if child >= len(c.heap) {
			break
		}
		if child+1 < len(c.heap) && c.less(child+1, child) {
			child++
		}
		if !c.less(child, i) {
			break
		}
		c.swap(i, child)
		i = child
	}
	return i > from
}

// top of the heap, -1 when nothing is left.
func (c *cell) top(skip map[int32]bool) int32 {
	if len(skip) == 0 {
		return c.heap[0]
	}
	best := int32(-1)
	for _, slot := range c.heap {
		if !skip[slot] && (best < 0 || c.b.before(&c.b.lines[slot], &c.b.lines[best])) {
			best = slot
		}
	}
	return best
}
