package pod

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// scene is a State said in a few words. Containers of the pod are named by their
// sort: init…, side…, anything else is regular.
func scene(policy v1.RestartPolicy, containers string, have ...runtime.Container) *State {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "u"}, Spec: v1.PodSpec{RestartPolicy: policy}}
	for _, name := range strings.Fields(containers) {
		c := v1.Container{Name: name}
		switch {
		case strings.HasPrefix(name, "side"):
			c.RestartPolicy = ptr.To(v1.ContainerRestartPolicyAlways)
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		case strings.HasPrefix(name, "init"):
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		default:
			p.Spec.Containers = append(p.Spec.Containers, c)
		}
	}
	s := &State{
		Pod: p, Now: now, Volumes: true,
		Have: &runtime.Pod{Runtime: "test", Sandboxes: []runtime.Sandbox{{ID: "sb", Ready: true, IPs: []string{"10.0.0.1"}}}},
		Busy: map[string]Busy{}, Waiting: map[string]Waiting{}, Back: map[string]Back{}, Probes: map[string]Probe{},
	}
	for _, c := range have {
		c.ID, c.Sandbox = c.Name+fmt.Sprint(c.Attempt), "sb"
		s.Have.Containers = append(s.Have.Containers, c)
		if c.State == runtime.Running {
			s.Probes[c.ID] = Probe{Started: true, Ready: true}
		}
	}
	return s
}

func running(name string) runtime.Container {
	return runtime.Container{Name: name, State: runtime.Running, Started: now.Add(-time.Minute)}
}

func exited(name string, code int32) runtime.Container {
	return runtime.Container{Name: name, State: runtime.Exited, ExitCode: code, Finished: now.Add(-time.Second)}
}

func ops(p Plan) string {
	var list []string
	for _, o := range p.Ops {
		list = append(list, strings.TrimSpace(o.Kind.String()+" "+o.Name))
	}
	return strings.Join(list, ", ")
}

func TestDecide(t *testing.T) {
	always, never, onFailure := v1.RestartPolicyAlways, v1.RestartPolicyNever, v1.RestartPolicyOnFailure
	for name, c := range map[string]struct {
		s     *State
		with  func(*State)
		want  string
		ended bool
	}{
		"a new pod gets sandbox and volumes at once": {s: scene(always, "a"), want: "sandbox, volumes",
			with: func(s *State) { s.Have.Sandboxes, s.Volumes = nil, false }},
		"containers start beside each other":           {s: scene(always, "a b"), want: "start a, start b"},
		"nothing starts before the volumes are there":  {s: scene(always, "a"), want: "volumes", with: func(s *State) { s.Volumes = false }},
		"a container that is being started is left":    {s: scene(always, "a"), with: func(s *State) { s.Busy["a"] = Busy{Kind: Start} }},
		"a postStart hook holds the next one back":     {s: scene(always, "a b"), with: func(s *State) { s.Busy["a"] = Busy{Kind: Start, Hook: true} }},
		"init containers come first, one by one":       {s: scene(always, "init1 init2 a"), want: "start init1"},
		"the next init container follows":              {s: scene(always, "init1 init2 a", exited("init1", 0)), want: "start init2"},
		"a running init container is waited for":       {s: scene(always, "init1 a", running("init1"))},
		"after the last come the regular ones":         {s: scene(always, "init1 a", exited("init1", 0)), want: "start a"},
		"a failed init container is run again":         {s: scene(always, "init1 a", exited("init1", 1)), want: "start init1"},
		"or ends a pod that never restarts":            {s: scene(never, "init1 a", exited("init1", 1)), ended: true},
		"a sidecar that runs lets the next one start":  {s: scene(always, "side1 init2 a", running("side1")), want: "start init2"},
		"a sidecar that has not started does not":      {s: scene(always, "side1 a", running("side1")), with: func(s *State) { s.Probes["side10"] = Probe{} }},
		"a sidecar that ended is started beside":       {s: scene(always, "side1 a", exited("side1", 0), running("a")), want: "start side1"},
		"what ended is started again":                  {s: scene(always, "a", exited("a", 0)), want: "start a"},
		"not when it succeeded and policy says so":     {s: scene(onFailure, "a b", exited("a", 0), running("b"))},
		"all done is the end":                          {s: scene(onFailure, "a b", exited("a", 0), exited("b", 0)), ended: true},
		"a failed one of two does not end a Never pod": {s: scene(never, "a b", exited("a", 1), running("b"))},
		"crash back-off holds it back": {s: scene(always, "a", exited("a", 1)),
			with: func(s *State) { s.Back["a"] = Back{10 * time.Second, now.Add(-5 * time.Second)} }},
		"and lets it go when it is over": {s: scene(always, "a", exited("a", 1)), want: "start a",
			with: func(s *State) { s.Back["a"] = Back{time.Second / 2, now.Add(-5 * time.Second)} }},
		"a failed liveness probe kills": {s: scene(always, "a", running("a")), want: "kill a",
			with: func(s *State) { s.Probes["a0"] = Probe{Started: true, Failed: "liveness"} }},
		"a changed image restarts": {s: scene(always, "a", runtime.Container{Name: "a", State: runtime.Running, Hash: "old"}), want: "kill a"},
		"a dead sandbox is replaced once its containers are dead": {s: scene(always, "a", exited("a", 137)), want: "sandbox",
			with: func(s *State) { s.Have.Sandboxes[0].Ready = false }},
		"but not for a pod that never restarts": {s: scene(never, "a b", exited("a", 137)), ended: true,
			with: func(s *State) { s.Have.Sandboxes[0].Ready = false }},
		"deletion kills everything": {s: scene(always, "a b", running("a"), running("b")), want: "kill a, kill b",
			with: func(s *State) { s.End = &End{Deleted: true, Since: now} }},
		"sidecars stop last": {s: scene(always, "side1 side2 a", running("side1"), running("side2"), running("a")), want: "kill a",
			with: func(s *State) { s.End = &End{Deleted: true, Since: now} }},
		"and in reverse order": {s: scene(always, "side1 side2 a", running("side1"), running("side2"), exited("a", 0)), want: "kill side2",
			with: func(s *State) { s.End = &End{Deleted: true, Since: now} }},
		"unless the grace period is over": {s: scene(always, "side1 a", running("side1"), running("a")), want: "kill a, kill side1",
			with: func(s *State) { s.End = &End{Deleted: true, Since: now.Add(-time.Hour)} }},
		"a shorter grace period takes over": {s: scene(always, "a", running("a")), want: "kill a",
			with: func(s *State) {
				s.End = &End{Deleted: true, Since: now, Grace: ptr.To[int64](0)}
				s.Busy["a"] = Busy{Kind: Kill, Until: now.Add(30 * time.Second)}
			}},
		"then the sandbox stops": {s: scene(always, "a", exited("a", 0)), want: "stop", with: func(s *State) { s.End = &End{Deleted: true, Since: now} }},
		"then volumes go": {s: scene(always, "a", exited("a", 0)), want: "tidy",
			with: func(s *State) { s.End, s.Have.Sandboxes[0].Ready = &End{Deleted: true, Since: now}, false }},
		"then the object": {s: scene(always, "a", exited("a", 0)), want: "finish",
			with: func(s *State) {
				s.End, s.Have.Sandboxes[0].Ready, s.Clean = &End{Deleted: true, Since: now}, false, true
			}},
		"but not of a pod that only ended": {s: scene(never, "a", exited("a", 0)),
			with: func(s *State) { s.End, s.Have.Sandboxes[0].Ready, s.Clean = &End{Since: now}, false, true }},
	} {
		t.Run(name, func(t *testing.T) {
			if c.with != nil {
				c.with(c.s)
			}
			p := Decide(c.s)
			if got := ops(p); got != c.want || p.Ended != c.ended {
				t.Errorf("ops %q, ended %v; want %q, %v", got, p.Ended, c.want, c.ended)
			}
		})
	}
}

func TestRestartRules(t *testing.T) {
	p := &v1.Pod{Spec: v1.PodSpec{RestartPolicy: v1.RestartPolicyNever}}
	c := &v1.Container{RestartPolicy: ptr.To(v1.ContainerRestartPolicyNever), RestartPolicyRules: []v1.ContainerRestartRule{{
		Action:    v1.ContainerRestartRuleActionRestart,
		ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
	}}}
	if !Restarts(p, c, 42) || Restarts(p, c, 1) {
		t.Error("exit code 42 is to restart, and no other")
	}
}

func TestBackOff(t *testing.T) {
	var b Back
	at := now
	var got []string
	for range 8 {
		b = b.Next(at, at)
		got = append(got, b.Delay.String())
		at = b.Until(at)
	}
	if want := "10s 20s 40s 1m20s 2m40s 5m0s 5m0s 5m0s"; strings.Join(got, " ") != want {
		t.Errorf("delays %v, want %s", got, want)
	}
	if !b.Until(at.Add(11 * time.Minute)).IsZero() {
		t.Error("after more than ten good minutes a restart waits no more")
	}
}

// busyStart is a scene in which container a is still being started.
func busyStart(s *State, hook bool) *State {
	s.Busy["a"] = Busy{Kind: Start, Hook: hook}
	return s
}

func TestStatus(t *testing.T) {
	for name, c := range map[string]struct {
		s     *State
		held  map[string]Waiting
		phase v1.PodPhase
		ready v1.ConditionStatus
		state string // of container a
	}{
		"nothing yet":                    {s: scene(v1.RestartPolicyAlways, "a"), phase: v1.PodPending, ready: v1.ConditionFalse, state: "waiting ContainerCreating"},
		"initializing":                   {s: scene(v1.RestartPolicyAlways, "init1 a", running("init1")), phase: v1.PodPending, ready: v1.ConditionFalse, state: "waiting PodInitializing"},
		"running":                        {s: scene(v1.RestartPolicyAlways, "a", running("a")), phase: v1.PodRunning, ready: v1.ConditionTrue, state: "running"},
		"seen before its start returned": {s: busyStart(scene(v1.RestartPolicyAlways, "a", running("a")), false), phase: v1.PodRunning, ready: v1.ConditionTrue, state: "running"},
		"with a hook that runs":          {s: busyStart(scene(v1.RestartPolicyAlways, "a", running("a")), true), phase: v1.PodRunning, ready: v1.ConditionFalse, state: "running"},
		"one of two":                     {s: scene(v1.RestartPolicyAlways, "a b", running("a")), phase: v1.PodPending, ready: v1.ConditionFalse, state: "running"},
		"between restarts":               {s: scene(v1.RestartPolicyAlways, "a", exited("a", 1)), phase: v1.PodRunning, ready: v1.ConditionFalse, state: "terminated Error"},
		"held back": {s: scene(v1.RestartPolicyAlways, "a", exited("a", 1)), held: map[string]Waiting{"a": {Reason: "CrashLoopBackOff"}},
			phase: v1.PodRunning, ready: v1.ConditionFalse, state: "waiting CrashLoopBackOff"},
		"succeeded":   {s: scene(v1.RestartPolicyNever, "a", exited("a", 0)), phase: v1.PodSucceeded, ready: v1.ConditionFalse, state: "terminated Completed"},
		"failed":      {s: scene(v1.RestartPolicyNever, "a b", exited("a", 3), exited("b", 0)), phase: v1.PodFailed, ready: v1.ConditionFalse, state: "terminated Error"},
		"failed init": {s: scene(v1.RestartPolicyNever, "init1 a", exited("init1", 3)), phase: v1.PodFailed, ready: v1.ConditionFalse, state: "waiting PodInitializing"},
	} {
		t.Run(name, func(t *testing.T) {
			st := Status(c.s, c.held)
			var a v1.ContainerState
			for _, cs := range st.ContainerStatuses {
				if cs.Name == "a" {
					a = cs.State
				}
			}
			state := "running"
			if a.Waiting != nil {
				state = "waiting " + a.Waiting.Reason
			} else if a.Terminated != nil {
				state = "terminated " + a.Terminated.Reason
			}
			ready := v1.ConditionUnknown
			for _, cond := range st.Conditions {
				if cond.Type == v1.PodReady {
					ready = cond.Status
				}
			}
			if st.Phase != c.phase || ready != c.ready || state != c.state {
				t.Errorf("%s, ready %s, a %s; want %s, %s, %s", st.Phase, ready, state, c.phase, c.ready, c.state)
			}
			again := *c.s
			again.Old, again.Now = st, now.Add(time.Minute)
			if next := Status(&again, c.held); !Same(&st, &next) {
				t.Errorf("an unchanged state gives another status a minute later:\n%+v\n%+v", st, next)
			}
		})
	}
}

func TestStatusKeepsForeignConditions(t *testing.T) {
	s := scene(v1.RestartPolicyAlways, "a", running("a"))
	s.Pod.Spec.ReadinessGates = []v1.PodReadinessGate{{ConditionType: "example.com/gate"}}
	if c := conditionOf(Status(s, nil), v1.PodReady); c.Reason != "ReadinessGatesNotReady" {
		t.Errorf("a gate that nobody opened: %+v", c)
	}
	s.Old.Conditions = []v1.PodCondition{{Type: "example.com/gate", Status: v1.ConditionTrue}}
	st := Status(s, nil)
	if c := conditionOf(st, v1.PodReady); c.Status != v1.ConditionTrue {
		t.Errorf("the gate is open: %+v", c)
	}
	if c := conditionOf(st, "example.com/gate"); c.Status != v1.ConditionTrue {
		t.Error("a condition of somebody else is gone")
	}
}

func conditionOf(st v1.PodStatus, t v1.PodConditionType) v1.PodCondition {
	for _, c := range st.Conditions {
		if c.Type == t {
			return c
		}
	}
	return v1.PodCondition{}
}

// A container whose definition changed gives way to another: the pod is not told
// as unready for the moment in between, and is if it lasts.
func TestUntold(t *testing.T) {
	changed := running("a")
	changed.Hash = "of what it was"
	s := scene(v1.RestartPolicyAlways, "a", changed)
	changed = s.Have.Containers[0]
	kill := Decide(s).Ops
	if len(kill) != 1 || kill[0].Kind != Kill || !kill[0].Anew {
		t.Fatalf("%v", kill)
	}
	if !s.Untold().IsZero() {
		t.Error("nothing is under way")
	}
	s.Anew = map[string]Anew{"a": {ID: changed.ID, Since: s.Now}}
	until := s.Now.Add(time.Second)
	if got := s.Untold(); !got.Equal(until) {
		t.Errorf("while the old one runs: %v", got)
	}
	gone := exited("a", 137)
	gone.ID = changed.ID
	s.Have.Containers = []runtime.Container{gone}
	if got := s.Untold(); !got.Equal(until) {
		t.Errorf("between the two: %v", got)
	}
	late := *s
	late.Anew, late.Now = map[string]Anew{"a": s.Anew["a"]}, until
	if !late.Untold().IsZero() || len(late.Anew) > 0 {
		t.Error("it takes too long not to be told")
	}
	s.End = &End{}
	if !s.Untold().IsZero() {
		t.Error("a pod that ends says so")
	}
	s.End, s.Anew = nil, map[string]Anew{"a": {ID: changed.ID, Since: s.Now}}
	next := running("a")
	next.ID = "another"
	s.Have.Containers = []runtime.Container{next, gone}
	if !s.Untold().IsZero() || len(s.Anew) > 0 {
		t.Error("the other one runs")
	}
}
