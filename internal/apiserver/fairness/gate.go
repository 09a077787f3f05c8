package fairness

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// maxWidth is how many seats one request takes at most.
const maxWidth = 10

// Gate lets requests through to the verbs. Safe for concurrent use.
type Gate struct {
	seats int
	wait  time.Duration // longest in a queue
	plan  atomic.Pointer[plan]

	mu       sync.Mutex
	levels   map[string]*level
	waiting  int
	reserved int // of each level what it uses or what it is guaranteed, whatever is more
}

// NewGate for a number of requests at once, with the mandatory configuration only.
// wait is how long a request stands in a queue at most.
func NewGate(seats int, wait time.Duration) *Gate {
	g := &Gate{seats: seats, wait: wait, levels: map[string]*level{}}
	g.Configure(nil, nil)
	return g
}

// Configure the gate by all the objects there are. Requests that run or wait stay
// what they are.
func (g *Gate) Configure(schemas []*flowcontrolv1.FlowSchema, levels []*flowcontrolv1.PriorityLevelConfiguration) {
	p := newPlan(schemas, levels, g.seats)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.levels {
		l.retired = true
	}
	for name, lim := range p.limits {
		if l, ok := g.levels[name]; ok {
			l.configure(lim)
		} else {
			g.levels[name] = newLevel(name, lim)
		}
	}
	g.reserved, g.waiting = 0, 0
	for name, l := range g.levels {
		if l.retired && l.executing == 0 && l.waiting == 0 {
			delete(g.levels, name)
			continue
		}
		if l.retired {
			l.guarantee = 0
		}
		g.reserved += l.holds()
		g.waiting += l.waiting
	}
	g.plan.Store(p)
	g.dispatch()
}

// holds says how many seats others cannot have because of this level.
func (l *level) holds() int {
	if l.exempt {
		return l.guarantee // what is exempt is not counted against anybody
	}
	return max(l.executing, l.guarantee)
}

// Pass is a request that was let through. Done must be called once.
type Pass struct {
	gate   *Gate
	ticket ticket
}

// Flow tells how a request was classified: the values of the headers
// X-Kubernetes-PF-FlowSchema-UID and X-Kubernetes-PF-PriorityLevel-UID.
func (p *Pass) Flow() (schema, level []string) {
	return p.ticket.schema.headers[0], p.ticket.schema.headers[1]
}

// Reasons why a request is refused, as the metrics name them.
const (
	QueueFull   = "queue-full"
	Concurrency = "concurrency-limit"
	TimeOut     = "time-out"
	Cancelled   = "cancelled"
)

// Enter waits until the request may be worked on; width is how many seats it
// takes, at least one. reason is empty if it may, otherwise why not. The pass is
// never nil; Done is called only if the request may.
func (g *Gate) Enter(ctx context.Context, u *request.User, i *request.Info, width int) (pass *Pass, reason string) {
	s := g.plan.Load().match(u, i)
	p := &Pass{gate: g, ticket: ticket{schema: s, width: min(max(width, 1), maxWidth), since: time.Now()}}
	t := &p.ticket
	g.mu.Lock()
	l, ok := g.levels[s.level]
	if !ok { // the configuration changed in between, and the level is gone for good
		s = &schema{name: s.name, level: "catch-all", headers: s.headers}
		l, t.schema = g.levels[s.level], s
	}
	t.level = l
	if l.exempt {
		g.begin(t)
		g.mu.Unlock()
		return p, ""
	}
	t.width = min(t.width, l.most)
	if l.waiting == 0 && g.room(l, t.width) {
		if len(l.queues) > 0 {
			t.flow = s.flow(u, i)
			t.hash = hashOf(s.name, t.flow)
			t.queue = l.deal(t.hash)
			if t.queue.running == 0 {
				t.queue.start = max(t.queue.start, l.clock)
			}
		}
		g.begin(t)
		g.mu.Unlock()
		return p, ""
	}
	if len(l.queues) == 0 {
		l.reject(t, Concurrency)
		g.mu.Unlock()
		return p, Concurrency
	}
	t.flow = s.flow(u, i)
	t.hash = hashOf(s.name, t.flow)
	if l.deal(t.hash).waiting.Len() >= int(l.queuing.QueueLengthLimit) {
		l.reject(t, QueueFull)
		g.mu.Unlock()
		return p, QueueFull
	}
	t.granted = make(chan struct{})
	l.enqueue(t)
	g.waiting++
	g.mu.Unlock()
	return p, g.await(ctx, t)
}

// await the turn of a request that waits.
func (g *Gate) await(ctx context.Context, t *ticket) (reason string) {
	timer := time.NewTimer(g.wait)
	defer timer.Stop()
	select {
	case <-t.granted:
		return ""
	case <-timer.C:
		reason = TimeOut
	case <-ctx.Done():
		reason = Cancelled
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.place == nil {
		return "" // it was let through at the same moment
	}
	t.level.leave(t)
	g.waiting--
	t.level.reject(t, reason)
	return reason
}

// Done gives the seats back.
func (p *Pass) Done() {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	l := p.ticket.level
	before := l.holds()
	l.end(&p.ticket)
	g.reserved += l.holds() - before
	if l.retired && l.executing == 0 && l.waiting == 0 && g.levels[l.name] == l {
		delete(g.levels, l.name)
	}
	g.dispatch()
}

func (g *Gate) begin(t *ticket) {
	before := t.level.holds()
	t.level.begin(t)
	g.reserved += t.level.holds() - before
}

// room says whether a level may use so many more seats: within its own limit, and
// without those that others use or are guaranteed. A request that is wider than
// what its level ever has alone may run when nothing else of the level does.
func (g *Gate) room(l *level, width int) bool {
	now := l.executing + width
	if l.retired { // who waits in it is served out, although nothing is its own any more
		return now <= l.nominal || l.executing == 0
	}
	if now <= l.guarantee {
		return true
	}
	if now > l.most {
		return false
	}
	return g.reserved-l.holds()+now <= g.seats || l.executing == 0 && g.reserved-l.holds() < g.seats
}

// dispatch lets through whoever has room, first in the levels that use least of
// what is theirs.
func (g *Gate) dispatch() {
	for g.waiting > 0 {
		var best *level
		var turn *ticket
		for _, l := range g.levels {
			if l.waiting == 0 || best != nil && l.used() >= best.used() {
				continue
			}
			if t := l.next(); t != nil && g.room(l, t.width) {
				best, turn = l, t
			}
		}
		if best == nil {
			return
		}
		best.leave(turn)
		g.waiting--
		g.begin(turn)
	}
}

// used is the part of its own seats that a level uses.
func (l *level) used() float64 { return float64(l.executing) / float64(max(l.nominal, 1)) }
