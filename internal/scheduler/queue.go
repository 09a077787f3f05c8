package scheduler

import (
	"container/heap"
	"time"
)

// stuck is how long a pod that fits nowhere waits at the most, should the happening
// that would help it not be among those that wake it.
const stuck = 5 * time.Minute

// queue holds the pods that wait for a node: those whose turn it is, by priority
// and age; those that failed a moment ago and back off; and those that wait for
// something to change.
type queue struct {
	first, most time.Duration // of backing off
	active      ordered
	backoff     byTime // those that did not fit: taken earlier when there is nothing else to do (KEP-5142)
	erred       byTime // those that failed by an error
	waiting     map[string]*waiting
	groups      map[group]map[string]*waiting
	all         map[string]*pod // whatever it waits for
}

// group is waiting pods that the same things help.
type group struct {
	*class
	by plugins // that refused them
}

type waiting struct {
	*pod
	group group
	since time.Time
}

func newQueue(c *Configuration) *queue {
	return &queue{
		first: c.BackoffFirst, most: c.BackoffMost,
		waiting: map[string]*waiting{}, groups: map[group]map[string]*waiting{}, all: map[string]*pod{},
	}
}

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
	w := q.waiting[key]
	if w == nil {
		return
	}
	delete(q.waiting, key)
	g := q.groups[w.group]
	if delete(g, key); len(g) == 0 {
		delete(q.groups, w.group)
	}
}

// pop the pod whose turn it is, nil if there is none.
func (q *queue) pop(now time.Time) *pod {
	for _, from := range []*byTime{&q.backoff, &q.erred} {
		for len(*from) > 0 && !(*from)[0].at.After(now) {
			if b := heap.Pop(from).(backedOff); q.all[b.key] == b.pod {
				heap.Push(&q.active, b.pod)
			}
		}
	}
	for {
		for q.active.Len() > 0 {
			if p := heap.Pop(&q.active).(*pod); q.all[p.key] == p {
				delete(q.all, p.key)
				return p
			}
		}
		if len(q.backoff) == 0 {
			return nil
		}
		for _, b := range q.backoff {
			if q.all[b.key] == b.pod {
				heap.Push(&q.active, b.pod)
			}
		}
		q.backoff = q.backoff[:0]
	}
}

// failed puts back a pod that fits nowhere, until something helps against the
// plugins that refused it.
func (q *queue) failed(p *pod, by plugins, now time.Time) {
	p.tries++
	p.errors, p.queued = 0, now
	w := &waiting{pod: p, since: now, group: group{p.class, by}}
	q.unwait(p.key)
	q.all[p.key], q.waiting[p.key] = p, w
	if q.groups[w.group] == nil {
		q.groups[w.group] = map[string]*waiting{}
	}
	q.groups[w.group][p.key] = w
}

// hold a pod that waits for its claims to be made: that is no failure, so it does
// not back off.
func (q *queue) hold(p *pod, now time.Time) {
	tries := p.tries
	q.failed(p, plugins(0).with(dynamicResources), now)
	p.tries, q.waiting[p.key].since = tries, now.Add(-q.most)
}

// again puts back a pod that failed for a reason that passes (a lost bind).
func (q *queue) again(p *pod, now time.Time) {
	p.errors++
	p.queued = now
	q.unwait(p.key)
	q.all[p.key] = p
	heap.Push(&q.erred, backedOff{p, now.Add(q.pause(p.errors))})
}

// wake the pods that an event may help. Those that failed only just back off first.
func (q *queue) wake(w *world, e happening, now time.Time) {
	for g, pods := range q.groups {
		if w.mayHelp(g.class, g.by, e) {
			for _, one := range pods {
				if w.mayHelpPod(one.pod, e) {
					q.rouse(one, now)
				}
			}
		}
	}
}

// rouse a waiting pod.
func (q *queue) rouse(one *waiting, now time.Time) {
	if one.gated {
		one.missed = true
		return
	}
	q.unwait(one.key)
	if at := one.since.Add(q.pause(one.tries)); at.After(now) {
		heap.Push(&q.backoff, backedOff{one.pod, at})
	} else {
		heap.Push(&q.active, one.pod)
	}
}

// flush those that wait for too long.
func (q *queue) flush(now time.Time) {
	for _, one := range q.waiting {
		if now.Sub(one.since) >= stuck {
			q.rouse(one, now)
		}
	}
}

// next is when to look again though nothing has happened; zero = never.
func (q *queue) next() time.Time {
	if len(q.erred) > 0 {
		return q.erred[0].at
	}
	return time.Time{}
}

// each visits everything that waits.
func (q *queue) each(f func(*pod)) {
	for _, p := range q.all {
		f(p)
	}
}

// pause before the next try, after so many.
func (q *queue) pause(tries int) time.Duration {
	d := q.first
	for i := 1; i < tries && d < q.most; i++ {
		d *= 2
	}
	return min(d, q.most)
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
