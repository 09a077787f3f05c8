package cache

import (
	"sort"
	"time"
)

// Window says how many past events of each kind are kept, for watches that
// begin in the past. Events go when there are more than Most, or more than Bytes
// (of the objects as they are stored), or when there are more than Least and they
// are older than Age.
type Window struct {
	Least int           // 0 = 1,000
	Most  int           // 0 = 100,000
	Bytes int           // 0 = 4 MiB, which is about 15 MB of decoded pods
	Age   time.Duration // 0 = 5 minutes
}

func (w *Window) defaults() {
	or := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	or(&w.Least, 1000)
	or(&w.Most, 100_000)
	or(&w.Bytes, 4<<20)
	if w.Age == 0 {
		w.Age = 5 * time.Minute
	}
}

// window of a kind: all events after a revision.
type window struct {
	limits Window
	from   int64
	events []past // events[head:] count
	head   int
	bytes  int
}

type past struct {
	Event
	at time.Time
}

func (w *window) add(e Event, now time.Time) {
	w.events = append(w.events, past{e, now})
	w.bytes += e.Item.Size()
}

// trim drops from the old end, whole revisions at a time.
func (w *window) trim(now time.Time) {
	for w.head < len(w.events) {
		n, oldest := len(w.events)-w.head, &w.events[w.head]
		tooMany := n > w.limits.Most || w.bytes > w.limits.Bytes
		tooOld := n > w.limits.Least && now.Sub(oldest.at) > w.limits.Age
		if !tooMany && !tooOld && oldest.Item.Revision > w.from {
			break
		}
		w.from = oldest.Item.Revision
		w.bytes -= oldest.Item.Size()
		*oldest = past{}
		w.head++
	}
	if w.head > 64 && w.head > len(w.events)/2 {
		left := copy(w.events, w.events[w.head:])
		clear(w.events[left:])
		w.events, w.head = w.events[:left], 0
	}
}

// restart forgets all: nothing is known of what happened up to a revision.
func (w *window) restart(rev int64) {
	*w = window{limits: w.limits, from: rev}
}

// after returns the events after a revision, and false when some of them are
// not here any more.
func (w *window) after(rev int64) ([]past, bool) {
	if rev < w.from {
		return nil, false
	}
	all := w.events[w.head:]
	i := sort.Search(len(all), func(i int) bool { return all[i].Item.Revision > rev })
	return all[i:], true
}
