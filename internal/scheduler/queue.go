package scheduler

import (
	"container/heap"
	"time"
)

const (
	backoffFirst = time.Second
	backoffMost  = 10 * time.Second
	// stuck is how long a pod that fits nowhere waits at the most, should the
	// event that would help it not be among those that wake it.
	stuck = 5 * time.Minute
)

// change is what can make room for a pod that fits nowhere.
type change uint8

const (
	nodeAdded      change = 1 << iota // a node came, or its labels, taints or room changed
	podGone                           // room, a port or an anti-affine pod went
	podCame                           // an affine pod came
	storageChanged                    // a claim, volume, class or driver came or changed
)

// helps says which changes may turn a plugin's no into a yes.
var helps = map[string]change{
	"NodeUnschedulable":  nodeAdded,
	"NodeName":           nodeAdded,
	"TaintToleration":    nodeAdded,
	"NodeAffinity":       nodeAdded,
	"NodePorts":          nodeAdded | podGone,
	"NodeResourcesFit":   nodeAdded | podGone,
	"PodTopologySpread":  nodeAdded | podGone | podCame,
	"InterPodAffinity":   nodeAdded | podGone | podCame,
	"VolumeRestrictions": podGone | storageChanged,
	"NodeVolumeLimits":   nodeAdded | podGone | storageChanged,
	"VolumeBinding":      nodeAdded | storageChanged,
	"VolumeZone":         nodeAdded | storageChanged,
}

// queue holds the pods that wait for a node: those whose turn it is, by priority
// and age; those that failed a moment ago and back off; and those that wait for
// something to change.
type queue struct {
	active  ordered
	backoff byTime
	waiting map[string]*waiting
	hoping  [6]int          // how many wait for a change, by its bit
	all     map[string]*pod // whatever it waits for
}

type waiting struct {
	*pod
	for_  change
	since time.Time
}

func newQueue() *queue { return &queue{waiting: map[string]*waiting{}, all: map[string]*pod{}} }

// put a pod whose turn it is.
func (q *queue) put(p *pod, now time.Time) {
	q.remove(p.key)
	if p.queued.IsZero() {
		p.queued = now
	}
	q.all[p.key] = p
	heap.Push(&q.active, p)
}

// remove a pod, wherever it is. What lies in the heaps is passed over later.
func (q *queue) remove(key string) {
	delete(q.all, key)
	q.unwait(key)
}

func (q *queue) unwait(key string) {
	if w := q.waiting[key]; w != nil {
		delete(q.waiting, key)
		q.tally(w.for_, -1)
	}
}

func (q *queue) tally(c change, by int) {
	for i := range q.hoping {
		if c&(1<<i) != 0 {
			q.hoping[i] += by
		}
	}
}

// hoped says whether anything waits for a change.
func (q *queue) hoped(c change) bool {
	for i, n := range q.hoping {
		if n > 0 && c&(1<<i) != 0 {
			return true
		}
	}
	return false
}

// pop the pod whose turn it is, nil if there is none.
func (q *queue) pop(now time.Time) *pod {
	for len(q.backoff) > 0 && !q.backoff[0].at.After(now) {
		b := heap.Pop(&q.backoff).(backedOff)
		if q.all[b.key] == b.pod {
			heap.Push(&q.active, b.pod)
		}
	}
	for q.active.Len() > 0 {
		p := heap.Pop(&q.active).(*pod)
		if q.all[p.key] == p {
			delete(q.all, p.key)
			p.attempts++
			return p
		}
	}
	return nil
}

// failed puts back a pod that fits nowhere, until one of the changes happens.
func (q *queue) failed(p *pod, for_ change, now time.Time) {
	w := &waiting{pod: p, since: now, for_: for_}
	q.unwait(p.key)
	q.all[p.key], q.waiting[p.key] = p, w
	q.tally(for_, 1)
}

// again puts back a pod that failed for a reason that passes (a lost bind).
func (q *queue) again(p *pod, now time.Time) {
	q.unwait(p.key)
	q.all[p.key] = p
	heap.Push(&q.backoff, backedOff{p, now.Add(p.backoff())})
}

// wake the pods that a change may help. Those that failed only just back off first.
func (q *queue) wake(c change, now time.Time) {
	if len(q.waiting) == 0 || c != 0 && !q.hoped(c) {
		return
	}
	for key, w := range q.waiting {
		if w.for_&c == 0 && now.Sub(w.since) < stuck {
			continue
		}
		q.unwait(key)
		if at := w.since.Add(w.backoff()); at.After(now) {
			heap.Push(&q.backoff, backedOff{w.pod, at})
		} else {
			heap.Push(&q.active, w.pod)
		}
	}
}

// next is when to look again though nothing has happened; zero = never.
func (q *queue) next() time.Time {
	var at time.Time
	if len(q.backoff) > 0 {
		at = q.backoff[0].at
	}
	for _, w := range q.waiting {
		if t := w.since.Add(stuck); at.IsZero() || t.Before(at) {
			at = t
		}
	}
	return at
}

// each visits everything that waits.
func (q *queue) each(f func(*pod)) {
	for _, p := range q.all {
		f(p)
	}
}

func (p *pod) backoff() time.Duration {
	d := backoffFirst
	for i := 1; i < p.attempts && d < backoffMost; i++ {
		d *= 2
	}
	return min(d, backoffMost)
}

type ordered []*pod

func (o ordered) Len() int { return len(o) }
func (o ordered) Less(i, j int) bool {
	if o[i].priority != o[j].priority {
		return o[i].priority > o[j].priority
	}
	if !o[i].queued.Equal(o[j].queued) {
		return o[i].queued.Before(o[j].queued)
	}
	return o[i].key < o[j].key
}
func (o ordered) Swap(i, j int) { o[i], o[j] = o[j], o[i] }
func (o *ordered) Push(x any)   { *o = append(*o, x.(*pod)) }
func (o *ordered) Pop() any {
	l := *o
	p := l[len(l)-1]
	*o = l[:len(l)-1]
	return p
}

type backedOff struct {
	*pod
	at time.Time
}

type byTime []backedOff

func (b byTime) Len() int           { return len(b) }
func (b byTime) Less(i, j int) bool { return b[i].at.Before(b[j].at) }
func (b byTime) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }
func (b *byTime) Push(x any)        { *b = append(*b, x.(backedOff)) }
func (b *byTime) Pop() any {
	l := *b
	x := l[len(l)-1]
	*b = l[:len(l)-1]
	return x
}
