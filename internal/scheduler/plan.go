package scheduler

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// result of a decision: a node, or why not.
type result struct {
	node    *node
	score   int64
	devices *devicePlan // what to do about the pod's claims, nil = nothing
	why     *refusal    // when there is no node
	err     error       // when it could not be decided
}

// refusal says why no node takes a pod.
type refusal struct {
	verdicts []*verdict // of world.nodes
	whole    *verdict   // what is wrong with the pod whatever the node
	text     string
	by       plugins // that said no
}

const (
	// boardsMost is how many entries boards may have, all together, before the one
	// that was not asked for longest is dropped: 80 MB.
	boardsMost = 1 << 20
	// forgetAfter so many decisions on others a board is dropped at the next sweep.
	forgetAfter = 10_000
)

// boardOf a class, up to date.
func (w *world) boardOf(c *class) *board {
	w.clock++
	c.used = w.clock
	w.regroup(c)
	fresh := c.board == nil
	if fresh {
		c.board = &board{w: w, c: c}
		w.boards = append(w.boards, c)
	}
	c.board.sync()
	for total := 0; fresh && len(w.boards) > 16; total = 0 {
		for _, other := range w.boards {
			total += other.board.size()
		}
		if total <= boardsMost {
			break
		}
		w.dropBoard()
	}
	return c.board
}

func (b *board) fits(slot int32) bool {
	return b.verdict(slot) == nil
}

func (w *world) dropBoard() {
	oldest := 0
	for i, c := range w.boards {
		if c.used < w.boards[oldest].used {
			oldest = i
		}
	}
	w.boards[oldest].board = nil
	w.boards[oldest] = w.boards[len(w.boards)-1]
	w.boards = w.boards[:len(w.boards)-1]
}

// plan decides on a node for a pod. It changes nothing but what the world
// remembers for the next decision.
func (w *world) plan(p *pod) result {
	b := w.boardOf(p.class)
	if h := w.hopes[p.key]; h != nil {
		if n := w.byName[h.on]; n != nil && n.obj != nil && b.fits(n.slot) && !w.robs(p, n) {
			return result{node: n}
		}
	}
	n, score := b.pick(nil)
	if n != nil && w.robs(p, n) {
		skip, refused := map[int32]bool{}, map[int32]*verdict{}
		for n != nil {
			v := w.withHopes(p, n)
			if v == nil {
				return result{node: n, score: score}
			}
			skip[n.slot], refused[n.slot] = true, v
			n, score = w.boardOf(p.class).pick(skip)
		}
		return result{why: w.refuse(p, refused)}
	}
	if n == nil {
		if b.why == nil {
			b.why = w.refuse(p, nil)
		}
		return result{why: b.why}
	}
	return result{node: n, score: score}
}

// refuse works out why no node takes a pod. refused says so of nodes that its board
// would take it on.
func (w *world) refuse(p *pod, refused map[int32]*verdict) *refusal {
	b := p.board
	r := &refusal{verdicts: make([]*verdict, len(w.nodes)), whole: b.whole()}
	if r.whole == nil && p.need != nil {
		r.whole = p.need.rejected
	}
	if r.whole != nil {
		r.by = r.by.with(r.whole.plugin)
	}
	if len(w.nodes) == 0 {
		r.by = r.by.with(extended) // anything may help
	}
	for i, n := range w.nodes {
		v := b.verdict(n.slot)
		if v == nil {
			v = refused[n.slot]
		}
		r.verdicts[i] = v
		if v != nil {
			r.by = r.by.with(v.plugin)
		}
	}
	r.text = because(r, len(w.nodes))
	return r
}

// started is when a pod began to run, for the order of preemption: those that have
// not are younger than all that have.
func started(obj *corev1.Pod) time.Time {
	if obj.Status.StartTime != nil {
		return obj.Status.StartTime.Time
	}
	return time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
}
