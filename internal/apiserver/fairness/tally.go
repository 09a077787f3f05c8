package fairness

import (
	"time"
)

// tally is what the requests of one schema in one level did and do: for the metrics.
type tally struct {
	running, seats             int // that are worked on
	waiting, waitingSeats      int
	dispatched                 uint64
	rejected                   map[string]uint64 // by reason
	served, refused, execution histogram         // how long they waited; how long they took
}

func (l *level) tally(s *schema) *tally {
	t := l.tallies[s.name]
	if t == nil {
		t = &tally{rejected: map[string]uint64{}}
		l.tallies[s.name] = t
	}
	return t
}

// reject counts a request that is refused.
func (l *level) reject(t *ticket, reason string) {
	s := l.tally(t.schema)
	s.rejected[reason]++
	s.refused.observe(time.Since(t.since))
}

// limits of the buckets of histograms, in seconds; upstream's.
var bounds = [...]float64{0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30}

// histogram of durations.
type histogram struct {
	counts [len(bounds)]uint64 // up to each bound, and above the one before
	count  uint64
	sum    float64
}

func (h *histogram) observe(d time.Duration) {
	s := d.Seconds()
	h.count++
	h.sum += s
	for i, most := range bounds {
		if s <= most {
			h.counts[i]++
			break
		}
	}
}

// buckets as Prometheus has them: each counts those below it, too.
func (h *histogram) buckets() map[float64]uint64 {
	all, sum := map[float64]uint64{}, uint64(0)
	for i, most := range bounds {
		sum += h.counts[i]
		all[most] = sum
	}
	return all
}
