package cluster

import (
	"cmp"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/proa-dev/proa/internal/apiserver/fairness"
	"github.com/proa-dev/proa/internal/client"
)

// Limits of what the API server works on at once.
type Limits struct {
	Reads, Writes int64 // 0 = 400 and 200; with fairness their sum is what is divided
	Unfair        bool  // no priority and fairness: the two numbers, and nothing else
}

// longestWait of a request in a queue: a quarter of the time that a request has.
const longestWait = 15 * time.Second

// gate of the API server, nil = requests are only counted.
func (l Limits) gate() *fairness.Gate {
	if l.Unfair {
		return nil
	}
	return fairness.NewGate(int(cmp.Or(l.Reads, 400)+cmp.Or(l.Writes, 200)), longestWait)
}

// configureGate by the flow schemas and priority levels that are stored, now and
// whenever they change.
func (s *server) configureGate(in *client.Informers) {
	if s.gate == nil {
		return
	}
	schemas := client.Shared[*flowcontrolv1.FlowSchema](in, client.Scope{})
	levels := client.Shared[*flowcontrolv1.PriorityLevelConfiguration](in, client.Scope{})
	apply := func() { s.gate.Configure(schemas.List("", nil), levels.List("", nil)) }
	schemas.OnChange(func(old, now *flowcontrolv1.FlowSchema) {
		if old == nil || now == nil || old.Generation != now.Generation || old.UID != now.UID {
			apply()
		}
	})
	levels.OnChange(func(_, _ *flowcontrolv1.PriorityLevelConfiguration) { apply() })
}
