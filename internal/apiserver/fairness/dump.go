package fairness

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"text/tabwriter"
	"time"
)

// Prefix of the paths that tell what the gate does, for whoever looks why requests
// wait.
const Prefix = "/debug/api_priority_and_fairness/"

// ServeHTTP answers dump_priority_levels, dump_queues and dump_requests below
// Prefix, as tables with commas like upstream's.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	dumps := map[string]func(io.Writer){
		Prefix + "dump_priority_levels": g.dumpLevels, Prefix + "dump_queues": g.dumpQueues, Prefix + "dump_requests": g.dumpRequests,
	}
	dump, ok := dumps[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	t := tabwriter.NewWriter(w, 8, 0, 1, ' ', 0)
	dump(t)
	t.Flush()
}

// each calls f with every level, by name.
func (g *Gate) each(f func(l *level)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(g.levels)) {
		f(g.levels[name])
	}
}

func (g *Gate) dumpLevels(w io.Writer) {
	fmt.Fprintln(w, "PriorityLevelName,\tActiveQueues,\tIsIdle,\tIsQuiescing,\tWaitingRequests,\tExecutingRequests,\tDispatchedRequests,\tRejectedRequests,\tTimedoutRequests,\tCancelledRequests")
	g.each(func(l *level) {
		active, dispatched := 0, uint64(0)
		for _, q := range l.queues {
			if q.waiting.Len() > 0 {
				active++
			}
		}
		rejected := map[string]uint64{}
		for _, s := range l.tallies {
			dispatched += s.dispatched
			for reason, n := range s.rejected {
				rejected[reason] += n
			}
		}
		fmt.Fprintf(w, "%s,\t%d,\t%t,\t%t,\t%d,\t%d,\t%d,\t%d,\t%d,\t%d\n", l.name, active, l.waiting+l.running == 0, l.retired, l.waiting, l.running,
			dispatched, rejected[QueueFull]+rejected[Concurrency], rejected[TimeOut], rejected[Cancelled])
	})
}

func (g *Gate) dumpQueues(w io.Writer) {
	fmt.Fprintln(w, "PriorityLevelName,\tIndex,\tPendingRequests,\tExecutingSeats,\tSeatsInQueue,\tNextDispatchR")
	g.each(func(l *level) {
		for i, q := range l.queues {
			fmt.Fprintf(w, "%s,\t%d,\t%d,\t%d,\t%d,\t%.3fs\n", l.name, i, q.waiting.Len(), q.running, q.width, q.start)
		}
	})
}

func (g *Gate) dumpRequests(w io.Writer) {
	fmt.Fprintln(w, "PriorityLevelName,\tFlowSchemaName,\tQueueIndex,\tRequestIndexInQueue,\tFlowDistinguisher,\tArriveTime,\tInitialSeats")
	g.each(func(l *level) {
		for i, q := range l.queues {
			n := 0
			for e := q.waiting.Front(); e != nil; e = e.Next() {
				t := e.Value.(*ticket)
				fmt.Fprintf(w, "%s,\t%s,\t%d,\t%d,\t%s,\t%s,\t%d\n", l.name, t.schema.name, i, n, t.flow, t.since.UTC().Format(time.RFC3339Nano), t.width)
				n++
			}
		}
	})
}
