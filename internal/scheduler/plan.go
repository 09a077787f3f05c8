package scheduler

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// result of a decision: a node, or why not.
type result struct {
	node  *node
	score int64
	why   *refusal // when there is no node
}

// refusal says why no node takes a pod.
type refusal struct {
	verdicts []verdict // of world.nodes
	whole    verdict   // what is wrong with the pod whatever the node
	text     string
	for_     change // what may help
}

// boardsMost is how many entries boards may have, all together, before the one
// that was not asked for longest is dropped.
const boardsMost = 4 << 20

// boardOf a class, up to date.
func (w *world) boardOf(c *class) *board {
	w.clock++
	c.used = w.clock
	if c.board == nil {
		c.board = &board{w: w, c: c}
		w.boards = append(w.boards, c)
		if len(w.boards) > 16 && len(w.boards)*len(w.slots) > boardsMost {
			w.dropBoard()
		}
	}
	c.board.sync()
	return c.board
}

func (b *board) fits(slot int32) bool {
	v := b.verdict(slot)
	return v.ok()
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
		skip := map[int32]bool{}
		for n != nil && w.robs(p, n) {
			skip[n.slot] = true
			n, score = w.boardOf(p.class).pick(skip)
		}
		if n == nil {
			return result{why: w.refuse(p, skip)}
		}
	}
	if n == nil {
		if b.why == nil {
			b.why = w.refuse(p, nil)
		}
		return result{why: b.why}
	}
	return result{node: n, score: score}
}

// refuse works out why no node takes a pod. robbed are those where others hope
// for the room.
func (w *world) refuse(p *pod, robbed map[int32]bool) *refusal {
	r := &refusal{for_: nodeAdded}
	b := p.board
	if b.want != nil && !b.want.rejected.ok() && len(w.nodes) > 0 {
		r.whole, r.for_ = b.want.rejected, storageChanged
	}
	r.verdicts = make([]verdict, len(w.nodes))
	for i, n := range w.nodes {
		v := b.verdict(n.slot)
		if robbed[n.slot] && v.ok() {
			v = w.withHopes(p, n)
		}
		r.verdicts[i] = v
		r.for_ |= helps[v.plugin]
	}
	r.text = because(r, len(w.nodes))
	return r
}

// startOf a pod, for the order of preemption.
func startOf(obj *corev1.Pod) time.Time {
	if obj.Status.StartTime != nil {
		return obj.Status.StartTime.Time
	}
	return obj.CreationTimestamp.Time
}
