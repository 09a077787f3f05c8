package fairness

import (
	"context"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api/flowcontrol"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

var (
	masters = &request.User{Name: "admin", Groups: []string{request.Masters, request.Authenticated}}
	node    = &request.User{Name: "system:node:a", Groups: []string{request.Nodes, request.Authenticated}}
	someone = &request.User{Name: "someone", Groups: []string{request.Authenticated}}
	other   = &request.User{Name: "other", Groups: []string{request.Authenticated}}
	pods    = &request.Info{IsResource: true, Verb: "get", Version: "v1", Resource: "pods", Namespace: "default", Name: "x"}
)

func account(namespace, name string) *request.User {
	return &request.User{Name: accountPrefix + namespace + ":" + name, Groups: []string{"system:serviceaccounts", request.Authenticated}}
}

func TestClassifies(t *testing.T) {
	p := newPlan(flowcontrol.Schemas(), flowcontrol.Levels(), 600)
	lease := &request.Info{IsResource: true, Verb: "update", Group: "coordination.k8s.io", Version: "v1", Resource: "leases", Namespace: "kube-node-lease", Name: "a"}
	status := &request.Info{IsResource: true, Verb: "patch", Version: "v1", Resource: "nodes", Subresource: "status", Name: "a"}
	for _, c := range []struct {
		user         *request.User
		info         *request.Info
		schema, flow string
	}{
		{masters, pods, "exempt", ""},
		{someone, &request.Info{Verb: "get", Path: "/readyz"}, "probes", ""},
		{someone, &request.Info{Verb: "get", Path: "/version"}, "global-default", "someone"},
		{node, lease, "system-node-high", "system:node:a"},
		{node, status, "system-node-high", "system:node:a"},
		{node, pods, "system-nodes", "system:node:a"},
		{account("kube-system", "x"), lease, "system-leader-election", "system:serviceaccount:kube-system:x"},
		{account("kube-system", "x"), pods, "kube-system-service-accounts", "default"},
		{account("default", "x"), pods, "service-accounts", "system:serviceaccount:default:x"},
		{someone, pods, "global-default", "someone"},
		{&request.User{Name: "no groups"}, pods, "catch-all", "no groups"},
	} {
		s := p.match(c.user, c.info)
		if s.name != c.schema || s.flow(c.user, c.info) != c.flow {
			t.Errorf("%s %s %s%s: %s %q, want %s %q", c.user.Name, c.info.Verb, c.info.Path, c.info.Resource, s.name, s.flow(c.user, c.info), c.schema, c.flow)
		}
	}
}

func TestDividesSeats(t *testing.T) {
	p := newPlan(flowcontrol.Schemas(), flowcontrol.Levels(), 600)
	for name, want := range map[string][2]int{"catch-all": {13, 13}, "system": {74, 50}, "leader-election": {25, 25}, "workload-low": {245, 24}, "exempt": {0, 0}} {
		if l := p.limits[name]; l.nominal != want[0] || l.guarantee != want[1] {
			t.Errorf("%s: %d seats of which %d are guaranteed, want %v", name, l.nominal, l.guarantee, want)
		}
	}
}

// small is a gate of eight seats: one for catch-all, four for b, which lends none,
// and the others for a, which lends them all.
func small(queueLength int32) *Gate {
	level := func(name string, lendable int32) *flowcontrolv1.PriorityLevelConfiguration {
		return &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
			Type: flowcontrolv1.PriorityLevelEnablementLimited,
			Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{NominalConcurrencyShares: ptr.To[int32](1000), LendablePercent: ptr.To(lendable),
				LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeQueue,
					Queuing: &flowcontrolv1.QueuingConfiguration{Queues: 16, HandSize: 2, QueueLengthLimit: queueLength}}},
		}}
	}
	schema := func(level, user string) *flowcontrolv1.FlowSchema {
		return &flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: level, UID: "uid-of-schema"}, Spec: flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: level}, MatchingPrecedence: 500,
			DistinguisherMethod: &flowcontrolv1.FlowDistinguisherMethod{Type: flowcontrolv1.FlowDistinguisherMethodByNamespaceType},
			Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
				Subjects:      []flowcontrolv1.Subject{{Kind: flowcontrolv1.SubjectKindUser, User: &flowcontrolv1.UserSubject{Name: user}}},
				ResourceRules: []flowcontrolv1.ResourcePolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}, Namespaces: []string{"*"}, ClusterScope: true}},
			}},
		}}
	}
	g := NewGate(8, time.Minute)
	g.Configure([]*flowcontrolv1.FlowSchema{schema("a", "someone"), schema("b", "other")},
		[]*flowcontrolv1.PriorityLevelConfiguration{level("a", 100), level("b", 0)})
	return g
}

// enter without having to wait.
func enter(t *testing.T, g *Gate, u *request.User, n int) (passes []*Pass) {
	t.Helper()
	for range n {
		p, reason := g.Enter(t.Context(), u, pods, 1)
		if reason != "" {
			t.Fatalf("%s was refused: %s", u.Name, reason)
		}
		passes = append(passes, p)
	}
	return passes
}

func TestLevelsLendAndBorrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := small(50)
		borrowed := enter(t, g, other, 7) // its own four, and all of a's
		entered := make(chan *Pass)
		go func() {
			p, _ := g.Enter(t.Context(), someone, pods, 1)
			entered <- p
		}()
		synctest.Wait()
		select {
		case <-entered:
			t.Fatal("a request without a seat")
		default:
		}
		borrowed[0].Done()
		(<-entered).Done()
		for _, p := range borrowed[1:] {
			p.Done()
		}
		// b lends nothing: a has its own three, and no more
		enter(t, g, someone, 3)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, reason := g.Enter(ctx, someone, pods, 1); reason != Cancelled {
			t.Errorf("a fourth request of a: %q, want that it waits in vain", reason)
		}
		enter(t, g, other, 4)
	})
}

func TestExemptNeverWaits(t *testing.T) {
	g := small(50)
	enter(t, g, other, 7)
	enter(t, g, masters, 100)
}

func TestQueueHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := small(3)
		enter(t, g, other, 7)
		reasons := make(chan string, 100)
		for range 100 {
			go func() {
				_, reason := g.Enter(t.Context(), other, pods, 1)
				reasons <- reason
			}()
		}
		synctest.Wait()
		count := map[string]int{}
		for len(reasons) > 0 {
			count[<-reasons]++
		}
		if count[QueueFull] != 100-2*3 { // a hand of two queues of three places
			t.Errorf("refused at once: %v", count)
		}
		time.Sleep(time.Minute) // of the bubble's clock: the longest wait
		synctest.Wait()
		for len(reasons) > 0 {
			count[<-reasons]++
		}
		if count[TimeOut] != 6 {
			t.Errorf("after the longest wait: %v", count)
		}
	})
}

// A flow that sends much does not push aside one that sends little.
func TestFlowsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := small(1000)
		var mu sync.Mutex
		var order []string
		send := func(namespace string) {
			info := *pods
			info.Namespace = namespace
			p, reason := g.Enter(t.Context(), other, &info, 1)
			if reason != "" {
				return
			}
			mu.Lock()
			order = append(order, namespace)
			mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			p.Done()
		}
		var done sync.WaitGroup
		for range 400 {
			done.Go(func() { send("elephant") })
		}
		synctest.Wait()
		for range 5 {
			done.Go(func() { send("mouse") })
		}
		done.Wait()
		last := 0
		for i, ns := range order {
			if ns == "mouse" {
				last = i
			}
		}
		if last > 60 {
			t.Errorf("the last of five requests of a small flow was number %d of %d", last, len(order))
		}
	})
}

func TestWideRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := small(50)
		wide, reason := g.Enter(t.Context(), someone, pods, 10) // wider than the server
		if reason != "" {
			t.Fatal(reason)
		}
		enter(t, g, other, 4) // what b is guaranteed
		wide.Done()
	})
}

// The configuration changes under load: nobody is lost, and seats add up.
func TestConfigureWhileBusy(t *testing.T) {
	g := small(1000)
	var done sync.WaitGroup
	for i := range 64 {
		done.Go(func() {
			for range 200 {
				u := someone
				if i%2 == 0 {
					u = other
				}
				if p, reason := g.Enter(t.Context(), u, pods, i%3); reason == "" {
					p.Done()
				}
			}
		})
	}
	for i := range 200 {
		if i%2 == 0 {
			g.Configure(flowcontrol.Schemas(), flowcontrol.Levels())
		} else {
			g.Configure(nil, nil)
		}
	}
	done.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	sum := 0
	for _, l := range g.levels {
		if l.executing != 0 || l.waiting != 0 || l.running != 0 {
			t.Errorf("%s: %d seats and %d waiting when all is over", l.name, l.executing, l.waiting)
		}
		sum += l.holds()
	}
	if g.waiting != 0 || g.reserved != sum {
		t.Errorf("%d waiting, %d reserved, want 0 and %d", g.waiting, g.reserved, sum)
	}
}

func TestDump(t *testing.T) {
	g := small(50)
	enter(t, g, other, 2)
	w := httptest.NewRecorder()
	g.ServeHTTP(w, httptest.NewRequest("GET", Prefix+"dump_priority_levels", nil))
	found := false
	for _, line := range strings.Split(w.Body.String(), "\n") {
		fields := strings.Split(strings.ReplaceAll(line, " ", ""), ",")
		found = found || fields[0] == "b" && fields[5] == "2" && fields[6] == "2"
	}
	if !found {
		t.Error(w.Body)
	}
}

func BenchmarkEnter(b *testing.B) {
	g := NewGate(600, time.Second)
	g.Configure(flowcontrol.Schemas(), flowcontrol.Levels())
	b.ReportAllocs()
	for b.Loop() {
		p, _ := g.Enter(context.Background(), someone, pods, 1)
		p.Done()
	}
}

// TestServesOutALevelThatIsGone: who waits when their level is taken away, and the
// others are guaranteed all seats, does not wait in vain.
func TestServesOutALevelThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(20, time.Minute)
		g.Configure(flowcontrol.Schemas(), flowcontrol.Levels())
		passes := make(chan *Pass, 100)
		for range cap(passes) {
			go func() {
				p, reason := g.Enter(context.Background(), someone, pods, 1)
				if reason != "" {
					t.Error(reason)
				}
				passes <- p
			}()
		}
		synctest.Wait()
		if len(passes) == cap(passes) {
			t.Fatal("nobody waits")
		}
		g.Configure(nil, nil)
		began := time.Now()
		for range cap(passes) {
			(<-passes).Done()
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("they waited %s", took)
		}
	})
}
