package scheduler

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
	return c.b.before(c.b.line(c.heap[i]), c.b.line(c.heap[j]))
}

func (c *cell) swap(i, j int) {
	c.heap[i], c.heap[j] = c.heap[j], c.heap[i]
	c.b.line(c.heap[i]).at, c.b.line(c.heap[j]).at = i, j
}

func (c *cell) add(slot int32) {
	c.heap = append(c.heap, slot)
	c.b.line(slot).at = len(c.heap) - 1
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
		if !skip[slot] && (best < 0 || c.b.before(c.b.line(slot), c.b.line(best))) {
			best = slot
		}
	}
	return best
}
