package suite

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	configMap = "[sig-node] ConfigMap should be consumable [NodeConformance] [Conformance]"
	probe     = "[sig-node] Probing container should restart [Conformance]"
	quota     = "[sig-api-machinery] ResourceQuota should count [Conformance]"
)

// What ginkgo prints with several processes: a test is named below its time.
const parallel = `
------------------------------
• [2.123 seconds]
[sig-node] ConfigMap should be consumable [NodeConformance] [Conformance] [sig-node, NodeConformance, Conformance]
k8s.io/kubernetes/test/e2e/common/node/configmap.go:45

  STEP: Creating a kubernetes client
------------------------------
• [FAILED] [12.500 seconds]
[sig-node] Probing container [It] should restart [Conformance] [sig-node, Conformance]
  [FAILED] expected a restart
------------------------------
S [SKIPPED] [0.100 seconds]
[sig-api-machinery] ResourceQuota should count [Conformance] [sig-api-machinery, Conformance]
------------------------------
`

// What it prints with one process: a test is named when it starts.
const serial = `
------------------------------
[sig-node] ConfigMap should be consumable [NodeConformance] [Conformance] [sig-node, NodeConformance, Conformance]
k8s.io/kubernetes/test/e2e/common/node/configmap.go:45
  STEP: Creating a kubernetes client
• [2.123 seconds]
------------------------------
[sig-node] Probing container should restart [Conformance] [sig-node, Conformance]
k8s.io/kubernetes/test/e2e/common/node/probe.go:45
  STEP: waiting
• [FAILED] [12.500 seconds]
[sig-node] Probing container [It] should restart [Conformance] [sig-node, Conformance]
------------------------------
[sig-api-machinery] ResourceQuota should count [Conformance] [sig-api-machinery, Conformance]
S [SKIPPED] [0.100 seconds]
------------------------------
`

func TestWatch(t *testing.T) {
	for name, output := range map[string]string{"parallel": parallel, "serial": serial} {
		t.Run(name, func(t *testing.T) {
			tests := map[string]*Test{}
			for _, n := range []string{configMap, probe, quota} {
				tests[n] = &Test{Name: n, State: NotRun}
			}
			var ended []string
			w := &watcher{tests: tests, ended: func(t *Test) { ended = append(ended, t.Name) }}
			if err := w.watch(strings.NewReader(output), io.Discard); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(ended, []string{configMap, probe, quota}) {
				t.Errorf("ended: %q", ended)
			}
			for n, want := range map[string]Test{
				configMap: {State: Passed, Took: 2123 * time.Millisecond},
				probe:     {State: Failed, Took: 12500 * time.Millisecond},
				quota:     {State: Skipped, Took: 100 * time.Millisecond},
			} {
				if got := tests[n]; got.State != want.State || got.Took != want.Took {
					t.Errorf("%s: %s in %s, want %s in %s", n, got.State, got.Took, want.State, want.Took)
				}
			}
		})
	}
}

func TestMerge(t *testing.T) {
	failed := spec{ContainerHierarchyTexts: []string{"[sig-node] Probing container"}, LeafNodeText: "should restart [Conformance]", State: "timedout", RunTime: time.Second}
	failed.Failure.Message, failed.Failure.Location.FileName, failed.Failure.Location.LineNumber = "no restart\n", "/src/k8s.io/kubernetes/test/e2e/probe.go", 7
	interrupted := spec{LeafNodeText: configMap + " 2", State: "interrupted"}
	leftOut := spec{LeafNodeText: quota, State: "skipped"}
	tests := []*Test{{Name: probe, State: NotRun}, {Name: quota, State: NotRun}, {Name: configMap, State: Passed}, {Name: configMap + " 2", State: Failed}}
	merge(tests, []spec{failed, interrupted, leftOut, {LeafNodeText: "another"}})
	if got := tests[0]; got.State != Failed || got.Reason != "timedout at test/e2e/probe.go:7\nno restart" {
		t.Errorf("the failed one: %+v", got)
	}
	if tests[1].State != NotRun || tests[2].State != Passed {
		t.Errorf("what the report does not tell of changed: %+v, %+v", tests[1], tests[2])
	}
	if tests[3].State != NotRun {
		t.Errorf("the interrupted one: %+v", tests[3])
	}
	if tests[1].Sig() != "sig-api-machinery" {
		t.Errorf("sig %q", tests[1].Sig())
	}
}

func TestBroken(t *testing.T) {
	good, bad := spec{LeafNodeType: "ReportAfterSuite", State: "passed"}, spec{LeafNodeType: "SynchronizedBeforeSuite", State: "failed"}
	bad.Failure.Message = "no node is ready"
	if err := broken([]spec{good}); err != nil {
		t.Error(err)
	}
	if err := broken([]spec{good, bad}); err == nil || !strings.Contains(err.Error(), "SynchronizedBeforeSuite failed") || !strings.Contains(err.Error(), "no node is ready") {
		t.Errorf("got %v", err)
	}
}
