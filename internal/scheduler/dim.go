package scheduler

import "math"

// What a dimension counts.
const (
	isSpread     = iota // pods that a spread constraint looks at
	isAffine            // pods that required affinity asks for
	isAnti              // pods that required anti-affinity shuns
	isAgainst           // pods that shun this one
	isPreference        // weights of preferred affinity, own and others'
)

// dim is one thing that is summed up by the values of a topology key.
type dim struct {
	what   int
	key    string
	topo   *topology
	own    bool // each node is a domain of its own
	spread *spread
	from   []source

	dom   []int32 // by slot: the domain, -1 = the node has no such label
	in    []bool  // by slot: whether the node counts (spread policies)
	vals  []int64 // by slot: what the node adds to its domain
	sums  []int64 // by domain
	total int64

	// for hard spread constraints: the emptiest domain
	there []int32 // nodes that count, by domain
	size  int     // domains with such nodes
	hist  []int32 // domains by sum
	least int64
}

// source is one summand of a node's value.
type source struct {
	t      *term
	as     int // what is held, -1 = matching pods
	weight int64
}

func (b *board) makeDims() {
	b.dims = []dim{}
	o := b.c.options
	add := func(what int, t *term, as int, weight int64) {
		for i := range b.dims {
			if d := &b.dims[i]; d.what == what && d.key == t.key {
				d.from = append(d.from, source{t, as, weight})
				return
			}
		}
		b.dims = append(b.dims, dim{what: what, key: t.key, from: []source{{t, as, weight}}})
	}
	for i := range b.c.spread {
		s := &b.c.spread[i]
		if s.hard && o.filters.has(podTopologySpread) || !s.hard && o.weights[podTopologySpread] > 0 {
			b.dims = append(b.dims, dim{what: isSpread, key: s.key, spread: s, from: []source{{s.term, -1, 1}}})
		}
	}
	if o.filters.has(interPodAffinity) {
		for _, t := range b.c.affinity {
			add(isAffine, t, -1, 1)
		}
		for _, t := range b.c.anti {
			add(isAnti, t, -1, 1)
		}
	}
	if o.weights[interPodAffinity] > 0 {
		for i := range b.c.preferAffine {
			add(isPreference, b.c.preferAffine[i].term, -1, b.c.preferAffine[i].weight)
		}
		for i := range b.c.preferAnti {
			add(isPreference, b.c.preferAnti[i].term, -1, -b.c.preferAnti[i].weight)
		}
	}
	for _, h := range b.held {
		add(h.what, h.t, h.as, h.weight)
	}
	for i := range b.dims {
		d := &b.dims[i]
		d.topo = b.w.topology(d.key)
		// Softly over hosts, pods are counted by node whatever the label says.
		d.own = d.topo.own() || d.what == isSpread && !d.spread.hard && d.key == hostname
		n := len(b.w.slots)
		d.dom, d.in, d.vals = make([]int32, n), make([]bool, n), make([]int64, n)
		for j := range d.dom {
			d.dom[j] = -1
		}
		d.sums = make([]int64, len(d.topo.nodes))
		d.there, d.hist = make([]int32, len(d.sums)), make([]int32, 1, 16)
	}
}

// heldFor is a term of pods that are there, that says something about a class.
type heldFor struct {
	source
	what int
}

// holding is what pods that are there say about the board's pods.
func (b *board) holding() (all []heldFor) {
	o := b.c.options
	filters, scores := o.filters.has(interPodAffinity), o.weights[interPodAffinity] > 0
	if o.ignorePreferred && len(b.c.preferAffine)+len(b.c.preferAnti) == 0 {
		scores = false
	}
	weights := [...]int64{holdsAnti: 1, holdsAffine: o.hardAffinity, holdsPreferAffine: 1, holdsPreferAnti: -1}
	for _, t := range b.w.terms.order {
		if t.held == [4]int{} || !b.w.terms.matches(t, b.c.sample) {
			continue
		}
		for as, weight := range weights {
			switch {
			case t.held[as] == 0:
			case as == holdsAnti && filters:
				all = append(all, heldFor{source{t, as, 1}, isAgainst})
			case as != holdsAnti && scores && weight != 0:
				all = append(all, heldFor{source{t, as, weight}, isPreference})
			}
		}
	}
	return all
}

func (d *dim) value(slot int32) int64 {
	switch {
	case d.dom[slot] < 0:
		return 0
	case d.own:
		return d.vals[slot]
	}
	return d.sums[d.dom[slot]]
}

// learn a node's domain.
func (d *dim) learn(b *board, n *node) {
	for int(n.slot) >= len(d.dom) {
		d.dom, d.in, d.vals = append(d.dom, -1), append(d.in, false), append(d.vals, 0)
	}
	v, ok := n.label(d.key)
	if !ok {
		return
	}
	id := d.topo.id(v)
	for int(id) >= len(d.sums) {
		d.sums, d.there = append(d.sums, 0), append(d.there, 0)
	}
	d.dom[n.slot] = id
	d.in[n.slot] = d.spread == nil || b.included(d.spread, n)
	if d.in[n.slot] {
		if d.there[id]++; d.there[id] == 1 {
			d.size++
			d.into(d.sums[id])
		}
	}
}

// forget a node's domain and what it added.
func (d *dim) forget(slot int32) {
	if int(slot) >= len(d.dom) || d.dom[slot] < 0 {
		return
	}
	id := d.dom[slot]
	if d.in[slot] {
		d.change(id, -d.vals[slot])
		if d.there[id]--; d.there[id] == 0 {
			d.size--
			d.out(d.sums[id])
		}
	}
	d.dom[slot], d.in[slot], d.vals[slot] = -1, false, 0
}

// update what a node adds.
func (d *dim) update(slot int32) {
	if d.dom[slot] < 0 || !d.in[slot] {
		return
	}
	var v int64
	for i := range d.from {
		s := &d.from[i]
		if s.as < 0 {
			if int(slot) < len(s.t.nodes) {
				v += s.weight * int64(s.t.nodes[slot])
			}
		} else if h := s.t.holders[s.as]; int(slot) < len(h) {
			v += s.weight * h[slot]
		}
	}
	if v != d.vals[slot] {
		d.change(d.dom[slot], v-d.vals[slot])
		d.vals[slot] = v
	}
}

func (d *dim) change(id int32, by int64) {
	if by == 0 {
		return
	}
	if d.what == isSpread {
		d.out(d.sums[id])
		d.into(d.sums[id] + by)
	}
	d.sums[id] += by
	d.total += by
}

func (d *dim) into(sum int64) {
	if d.what != isSpread {
		return
	}
	d.hist = at(d.hist, int32(sum))
	d.hist[sum]++
	d.least = min(d.least, sum)
}

func (d *dim) out(sum int64) {
	if d.what == isSpread {
		d.hist[sum]--
	}
}

// emptiest is how many pods are in the emptiest domain that counts.
func (d *dim) emptiest() int64 {
	if d.size == 0 || d.size < int(d.spread.minDomains) {
		return 0
	}
	for d.least < int64(len(d.hist))-1 && d.hist[d.least] == 0 {
		d.least++
	}
	return d.least
}

// included nodes are those that a spread constraint counts: as its policies say,
// and only if they have the labels of all constraints of its sort.
func (b *board) included(s *spread, n *node) bool {
	if s.honorAffinity && !b.w.affine(b.c, n) || s.honorTaints && untolerated(b.c, n.taints) > 0 {
		return false
	}
	if b.c.spreadDefault {
		return true
	}
	for i := range b.c.spread {
		if o := &b.c.spread[i]; o.hard == s.hard {
			if _, ok := n.label(o.key); !ok {
				return false
			}
		}
	}
	return true
}

// gradeSpread: fewer pods in the nodes' domains score higher, more so where there
// are many domains.
func (b *board) gradeSpread(cells []*cell, feasible int) {
	any := false
	for i := range b.dims {
		any = any || b.dims[i].what == isSpread && !b.dims[i].spread.hard
	}
	ignored := 0
	for _, c := range cells {
		c.spread, c.ignored = 0, false
		for i := range b.dims {
			if d := &b.dims[i]; any && d.what == isSpread && !d.spread.hard && c.dom[i] < 0 && !b.c.spreadDefault {
				c.ignored = true
			}
		}
		if c.ignored {
			ignored += len(c.heap)
		}
	}
	if !any {
		return
	}
	var room [8]float64
	weights := room[:0]
	for i := range b.dims {
		weight := 0.0
		if d := &b.dims[i]; d.what == isSpread && !d.spread.hard {
			size := feasible - ignored
			if d.key != hostname {
				size = distinct(cells, i)
			}
			weight = math.Log(float64(size + 2))
		}
		weights = append(weights, weight)
	}
	lowest, highest := int64(math.MaxInt64), int64(0)
	for _, c := range cells {
		if c.ignored {
			continue
		}
		raw := 0.0
		for i := range b.dims {
			if d := &b.dims[i]; d.what == isSpread && !d.spread.hard && c.dom[i] >= 0 {
				raw += float64(c.value(i))*weights[i] + float64(d.spread.maxSkew-1)
			}
		}
		c.spread = int64(math.Round(raw))
		lowest, highest = min(lowest, c.spread), max(highest, c.spread)
	}
	for _, c := range cells {
		switch {
		case c.ignored:
		case highest == 0:
			c.spread = 100
		default:
			c.spread = 100 * (highest + lowest - c.spread) / highest
		}
	}
}

// distinct domains of a dimension among cells; no label is one, too.
func distinct(cells []*cell, i int) int {
	if len(cells) <= 16 {
		n := 0
		for j, c := range cells {
			fresh := true
			for _, before := range cells[:j] {
				if !before.ignored && before.dom[i] == c.dom[i] {
					fresh = false
					break
				}
			}
			if fresh && !c.ignored {
				n++
			}
		}
		return n
	}
	seen := make(map[int32]bool, 64)
	for _, c := range cells {
		if !c.ignored {
			seen[c.dom[i]] = true
		}
	}
	return len(seen)
}

const hostname = "kubernetes.io/hostname"
