package scheduler

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	extenderv1 "k8s.io/kube-scheduler/extender/v1"
)

// extenders answers as a program of its own would.
type outsider struct {
	filter  func(extenderv1.ExtenderArgs) extenderv1.ExtenderFilterResult
	score   func(extenderv1.ExtenderArgs) extenderv1.HostPriorityList
	preempt func(extenderv1.ExtenderPreemptionArgs) extenderv1.ExtenderPreemptionResult
	bound   []extenderv1.ExtenderBindingArgs
}

func (o *outsider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var args extenderv1.ExtenderArgs
	read := func(into any) { _ = json.NewDecoder(r.Body).Decode(into) }
	var answer any
	switch r.URL.Path {
	case "/filter":
		read(&args)
		answer = o.filter(args)
	case "/prioritize":
		read(&args)
		answer = o.score(args)
	case "/preempt":
		var p extenderv1.ExtenderPreemptionArgs
		read(&p)
		answer = o.preempt(p)
	case "/bind":
		var b extenderv1.ExtenderBindingArgs
		read(&b)
		o.bound = append(o.bound, b)
		answer = extenderv1.ExtenderBindingResult{}
	default:
		http.NotFound(w, r)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func TestExtender(t *testing.T) {
	o := &outsider{
		filter: func(a extenderv1.ExtenderArgs) extenderv1.ExtenderFilterResult {
			var left []string
			for _, name := range *a.NodeNames {
				if name != "a" {
					left = append(left, name)
				}
			}
			return extenderv1.ExtenderFilterResult{NodeNames: &left, FailedNodes: extenderv1.FailedNodesMap{"a": "no licence"}}
		},
		score: func(extenderv1.ExtenderArgs) extenderv1.HostPriorityList {
			return extenderv1.HostPriorityList{{Host: "c", Score: 10}}
		},
	}
	srv := httptest.NewServer(o)
	defer srv.Close()
	config := func(more string) *Configuration {
		return parse(t, fmt.Sprintf("extenders: [{urlPrefix: %q, filterVerb: filter, prioritizeVerb: prioritize, weight: 5, nodeCacheCapable: true%s}]", srv.URL, more))
	}
	nodes := func(w *World, names ...string) *World {
		for _, n := range names {
			w.Set(aNode(n, "z"))
		}
		return w
	}
	if on, why := nodes(NewWorld(1, config("")), "a", "b", "c").Schedule(t.Context(), aPod("p")); on != "c" {
		t.Errorf("got %q %q, want c: a is filtered, b scores less", on, why)
	}
	if on, why := nodes(NewWorld(1, config("")), "a").Schedule(t.Context(), aPod("p")); on != "" || why != "0/1 nodes are available: 1 no licence." {
		t.Errorf("got %q %q", on, why)
	}
	other := config(", managedResources: [{name: example.com/x}]")
	if on, why := nodes(NewWorld(1, other), "a").Schedule(t.Context(), aPod("p")); on != "a" {
		t.Errorf("got %q %q: the pod asks for nothing that the extender manages", on, why)
	}
	srv.Close()
	if _, why := nodes(NewWorld(1, config("")), "a").Schedule(t.Context(), aPod("p")); !strings.Contains(why, "connection refused") {
		t.Errorf("got %q from an extender that is not there", why)
	}
	if on, why := nodes(NewWorld(1, config(", ignorable: true")), "a").Schedule(t.Context(), aPod("p")); on != "a" {
		t.Errorf("got %q %q: the extender may be ignored", on, why)
	}
}

func TestExtenderPreempts(t *testing.T) {
	o := &outsider{preempt: func(a extenderv1.ExtenderPreemptionArgs) extenderv1.ExtenderPreemptionResult {
		delete(a.NodeNameToMetaVictims, "a") // the one that Proa would take
		return extenderv1.ExtenderPreemptionResult{NodeNameToMetaVictims: a.NodeNameToMetaVictims}
	}}
	srv := httptest.NewServer(o)
	defer srv.Close()
	c := parse(t, fmt.Sprintf("extenders: [{urlPrefix: %q, preemptVerb: preempt, bindVerb: bind, nodeCacheCapable: true}]", srv.URL))
	w := newWorld(1, c)
	for _, n := range []string{"a", "b"} {
		w.setNode(aNode(n, "z"))
	}
	w.with("a", aPod("a1", cpu("4"), priority(1))).with("b", aPod("b1", cpu("4"), priority(2)))
	p := w.newPod(aPod("p", cpu("2"), priority(9)))
	all, _, _ := w.preempt(t.Context(), p, w.plan(p).why, nil)
	if best := least(all); best.node.name != "a" {
		t.Fatalf("got %s before the extender is asked", best.node.name)
	}
	all, err := w.narrow(t.Context(), p, c.interested(p.obj), all)
	if err != nil || len(all) != 1 || all[0].node.name != "b" || all[0].victims[0].obj.Name != "b1" {
		t.Errorf("got %+v %v", all, err)
	}
	s := &Scheduler{config: c}
	if bound, err := s.bindOutside(t.Context(), bind{pod: p, obj: p.obj, node: "b"}); !bound || err != nil || len(o.bound) != 1 || o.bound[0].Node != "b" {
		t.Errorf("bound %v %v %+v", bound, err, o.bound)
	}
}
