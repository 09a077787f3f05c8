package fairness

import (
	"container/list"
	"hash/fnv"
	"time"
)

// level is what goes on in a priority level: seats in use, and requests that wait.
type level struct {
	limits
	name      string
	retired   bool // no longer configured; it goes when nothing runs or waits
	executing int  // seats
	running   int  // requests
	waiting   int  // requests
	queues    []*queue
	clock     float64 // start tag of what was dispatched last (virtual seconds)
	took      float64 // usual time of a request, in seconds (moving average)

	tallies map[string]*tally // by schema
}

// queue of one level. start is the virtual time at which its next request starts:
// the more its requests used, the later.
type queue struct {
	waiting list.List // of *ticket
	width   int       // seats that the waiting ones want
	start   float64
	running int // seats
}

// ticket is one request that takes part.
type ticket struct {
	level   *level
	queue   *queue // nil = the level has none
	schema  *schema
	flow    string
	hash    uint64
	width   int
	since   time.Time // it came, and then: it began
	charged float64   // seconds that its queue was charged for each seat when it began
	granted chan struct{}
	place   *list.Element // nil = not waiting
}

func newLevel(name string, l limits) *level {
	lv := &level{name: name, took: 0.01, tallies: map[string]*tally{}}
	lv.configure(l)
	return lv
}

// configure gives the level new limits. If the number of its queues changes, those
// who wait are dealt new ones, in the order in which they came to each.
func (l *level) configure(c limits) {
	l.limits, l.retired = c, false
	n := 0
	if c.queuing != nil {
		n = int(c.queuing.Queues)
	}
	if n == len(l.queues) {
		return
	}
	old := l.queues
	l.queues = make([]*queue, n)
	for i := range l.queues {
		l.queues[i] = &queue{start: l.clock}
	}
	for _, q := range old {
		for e := q.waiting.Front(); e != nil; e = e.Next() {
			t := e.Value.(*ticket)
			l.waits(t, -1)
			if n == 0 { // it may go on at once: there is no place to wait any more
				t.place, t.queue = nil, nil
				l.begin(t)
				continue
			}
			l.enqueue(t)
		}
	}
}

// deal returns the queue of a flow's hand that has the least before it.
func (l *level) deal(hash uint64) *queue {
	n := uint64(len(l.queues))
	hand := min(uint64(max(l.queuing.HandSize, 1)), n)
	// Each card is drawn from those that are left, so that no hand has one twice.
	var cards [64]uint64
	drawn := cards[:0]
	var best *queue
	for k := range hand {
		left := n - k
		card := hash % left
		hash /= left
		at := 0
		for at < len(drawn) && drawn[at] <= card {
			card++
			at++
		}
		drawn = append(drawn, 0)
		copy(drawn[at+1:], drawn[at:])
		drawn[at] = card
		if q := l.queues[card]; best == nil || q.width+q.running < best.width+best.running {
			best = q
		}
	}
	return best
}

func (l *level) enqueue(t *ticket) {
	q := l.deal(t.hash)
	if q.waiting.Len() == 0 && q.running == 0 {
		q.start = max(q.start, l.now()) // idle time is not saved up
	}
	t.queue = q
	t.place = q.waiting.PushBack(t)
	q.width += t.width
	l.waits(t, 1)
}

// waits counts one more or one less that waits.
func (l *level) waits(t *ticket, more int) {
	l.waiting += more
	s := l.tally(t.schema)
	s.waiting += more
	s.waitingSeats += more * t.width
}

// leave the queue, without having begun or to begin.
func (l *level) leave(t *ticket) {
	t.queue.waiting.Remove(t.place)
	t.queue.width -= t.width
	t.place = nil
	l.waits(t, -1)
}

// next returns the request whose turn it is: the head of the queue that used least.
func (l *level) next() *ticket {
	var best *queue
	for _, q := range l.queues {
		if q.waiting.Len() > 0 && (best == nil || q.start < best.start) {
			best = q
		}
	}
	if best == nil {
		return nil
	}
	return best.waiting.Front().Value.(*ticket)
}

// now is the virtual time: where a queue begins that was idle. It is that of the next
// request in turn, for clock may be far ahead of it: requests are charged before it is
// known what they take, and most of it is taken back.
func (l *level) now() float64 {
	now, some := 0.0, false
	for _, q := range l.queues {
		if q.waiting.Len() > 0 && (!some || q.start < now) {
			now, some = q.start, true
		}
	}
	if some {
		return min(now, l.clock)
	}
	return l.clock
}

// begin takes the seats. The queue is charged what a request usually takes; end
// corrects that.
func (l *level) begin(t *ticket) {
	l.executing += t.width
	l.running++
	now := time.Now()
	s := l.tally(t.schema)
	s.dispatched++
	s.running++
	s.seats += t.width
	s.served.observe(now.Sub(t.since))
	t.since = now
	if q := t.queue; q != nil {
		l.clock = max(l.clock, q.start)
		t.charged = l.took
		q.start += l.took * float64(t.width)
		q.running += t.width
	}
	if t.granted != nil {
		close(t.granted)
	}
}

func (l *level) end(t *ticket) {
	l.executing -= t.width
	l.running--
	ran := time.Since(t.since)
	took := ran.Seconds()
	s := l.tally(t.schema)
	s.running--
	s.seats -= t.width
	s.execution.observe(ran)
	if q := t.queue; q != nil {
		q.running -= t.width
		q.start += (took - t.charged) * float64(t.width)
	}
	l.took += (took - l.took) / 64
}

// hashOf a flow: the same for the same schema and distinguisher.
func hashOf(schema, flow string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(schema))
	h.Write([]byte{0})
	h.Write([]byte(flow))
	x := h.Sum64() // FNV's low bits are weak; a finalizer mixes them
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}
