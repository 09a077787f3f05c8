package stats

import (
	"sync"
	"time"
)

// reading of a counter of CPU time.
type reading struct {
	at  time.Time
	cpu uint64 // nanoseconds
}

// rates remembers readings from one summary to the next, so that the second can
// say how much CPU was used in between. Nothing reads by itself.
type rates struct {
	mu    sync.Mutex
	base  map[string]reading // what rates are from; nil = next
	next  map[string]reading // the base to be, once it is old enough
	taken time.Time          // of next
}

const (
	window  = 5 * time.Second // rates are over at least so long, if there are readings
	forgets = time.Minute     // older readings say nothing of now
	shortly = 300 * time.Millisecond
)

// cold says that there is nothing to compare with: it takes two readings.
func (r *rates) cold(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next == nil || now.Sub(r.taken) > forgets
}

// add readings and get the rates in billionths of a core. started is when a
// counter began at 0, zero = not known; it helps those that are new. What cannot
// be said is not in the answer.
func (r *rates) add(now time.Time, all map[string]reading, started map[string]time.Time) map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	age := now.Sub(r.taken)
	switch {
	case r.next == nil || age > forgets:
		r.base, r.next, r.taken = nil, nil, now
	case age >= window:
		r.base, r.next = r.next, nil
	}
	from := r.base
	if from == nil {
		from = r.next
	}
	out := make(map[string]uint64, len(all))
	for key, is := range all {
		was, ok := from[key]
		if start := started[key]; !ok && !start.IsZero() && is.at.Sub(start) < forgets {
			was, ok = reading{at: start}, true
		}
		if took := is.at.Sub(was.at); ok && took > 0 && is.cpu >= was.cpu {
			out[key] = uint64(float64(is.cpu-was.cpu) / took.Seconds())
		}
	}
	if r.next == nil {
		r.next, r.taken = all, now
	}
	return out
}
