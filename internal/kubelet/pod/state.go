// Package pod decides what has to happen for one pod on this node, and what its
// status is. Everything here is pure: a State, which is what the worker of the
// pod knows at one moment, goes in; a Plan comes out. Doing is the worker's.
package pod

import (
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

// State is what is known about one pod.
type State struct {
	Pod     *v1.Pod      // as wanted, with the resources that were granted
	Old     v1.PodStatus // as last written
	Have    *runtime.Pod // as found in the runtime
	Now     time.Time
	HostIPs []string

	Busy    map[string]Busy    // operations under way, by container name; Whole = the pod's
	Waiting map[string]Waiting // why a container could not be started the last time
	Back    map[string]Back    // crash back-off, by container name
	Anew    map[string]Anew    // containers that are replaced because they are defined otherwise now, by name
	Probes  map[string]Probe   // by container ID
	Volumes bool               // all volumes are in place
	Retry   time.Time          // no new sandbox before
	Remount time.Time          // volumes that could not be put in place are not tried before

	End      *End // not nil: the pod is to stop
	Clean    bool // sandbox, volumes and cgroup are gone
	Resizing []v1.PodCondition
	RRO      bool // the runtime can mount read-only recursively

	// Update says which running containers do not have the resources they should.
	Update map[string]bool
}

// Whole is the key in State.Busy of operations on the pod as a whole.
const Whole = ""

// volumesKey is that of putting volumes in place, which goes on beside the rest.
const volumesKey = "\x00volumes"

// Busy is an operation under way.
type Busy struct {
	Kind  Kind
	Until time.Time // Kill: when the grace period is over
	Hook  bool      // Start: has a postStart hook, so later containers wait
}

// Waiting is why a container is not running, as its status shows it.
type Waiting struct {
	Reason, Message string
	Until           time.Time // not tried again before
	Config          bool      // a change of the pod or of what it refers to may help
	Image           string    // the image that could not be pulled …
	Since           time.Time // … and when
}

// Probe is what the probes of a running container say.
type Probe struct {
	Started, Ready bool
	Failed         string // "liveness" or "startup": the container has to be restarted
	Grace          *int64 // its probe's own terminationGracePeriodSeconds
}

// End is why and how a pod stops.
type End struct {
	Deleted bool // by the user: the object goes when all is done
	Phase   v1.PodPhase
	Reason  string
	Message string
	Grace   *int64 // seconds, nil = the pod's own
	Since   time.Time
	// Condition is added to the status, for evictions.
	Condition *v1.PodCondition
}

// Kind of an operation.
type Kind int

// The operations, and which fields of Op they need besides.
const (
	Sandbox Kind = iota + 1 // make a sandbox; Attempt
	Volumes                 // put volumes in place
	Start                   // pull, create, start, postStart hook
	Kill                    // preStop hook, stop signal, kill signal
	Stop                    // stop sandboxes
	Remove                  // remove a dead container
	Discard                 // remove a sandbox that a newer one has replaced
	Resize                  // update a running container's resources
	Tidy                    // unmount volumes, remove the cgroup
	Finish                  // delete the API object
)

func (k Kind) String() string {
	return [...]string{"", "sandbox", "volumes", "start", "kill", "stop", "remove", "discard", "resize", "tidy", "finish"}[k]
}

// Op is one thing to do.
type Op struct {
	Kind      Kind
	Name      string // of the container
	ID        string // of the container or sandbox
	Container *v1.Container
	Ephemeral *v1.EphemeralContainer
	Attempt   int
	Back      *Back // the back-off that holds after this start
	Grace     int64 // seconds
	Why       string
	Reason    string // why a container is killed: "", liveness, startup
	Anew      bool   // it is killed for another to take its place at once
}

// Anew is a container that another takes the place of.
type Anew struct {
	ID    string // of the one that was told to stop
	Since time.Time
}

// quiet is for how long the change of a container is not told.
const quiet = time.Second

// Untold says until when a status is not to be written: while a container changes
// places with its successor, which takes moments and is one step of the kubelet, the
// pod is as it was; should it take longer, the pod is what it is then. Zero = the
// status may be told.
func (s *State) Untold() (until time.Time) {
	for name, a := range s.Anew {
		end := a.Since.Add(quiet)
		now := s.Have.Latest(name)
		if s.End != nil || !s.Now.Before(end) || now != nil && now.ID != a.ID && now.State == runtime.Running {
			delete(s.Anew, name)
		} else if end.After(until) {
			until = end
		}
	}
	return until
}

func (o Op) String() string {
	return fmt.Sprintf("%v %s%s", o.Kind, o.Name, o.ID)
}

// Key under which the operation counts as busy.
func (o Op) Key() string {
	switch o.Kind {
	case Volumes:
		return volumesKey
	case Remove, Discard:
		return "\x00remove " + o.ID
	}
	return o.Name
}

// Plan is what to do now.
type Plan struct {
	Ops     []Op
	Wake    time.Time          // look again then, zero = only when something changes
	Waiting map[string]Waiting // containers held back, to be shown in the status
	Ended   bool               // everything has run to its end: the pod is to stop
	Done    bool               // nothing of the pod is left on the node and in the API
}

func (p *Plan) add(o Op) { p.Ops = append(p.Ops, o) }

func (p *Plan) wake(at time.Time) {
	if !at.IsZero() && (p.Wake.IsZero() || at.Before(p.Wake)) {
		p.Wake = at
	}
}

func (p *Plan) hold(name string, w Waiting) {
	p.Waiting[name] = w
	p.wake(w.Until)
}
