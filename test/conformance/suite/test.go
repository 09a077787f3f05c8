// Package suite runs upstream's conformance tests against a cluster and says of
// each how it ended.
package suite

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// State of a test.
type State string

// The states of a test. One that is not run was selected, but time was up or the
// run was interrupted, before it or while it ran.
const (
	Passed  State = "passed"
	Failed  State = "failed"
	Skipped State = "skipped"
	NotRun  State = "not run"
)

// Test is one test of the suite.
type Test struct {
	Name   string // "[sig-node] ConfigMap should … [Conformance]"
	State  State
	Took   time.Duration
	Reason string // of a failure or a skip: where, and what the test said
}

// Sig is the group that owns the test: "sig-node".
func (t *Test) Sig() string {
	name, _, found := strings.Cut(strings.TrimPrefix(t.Name, "["), "]")
	if !found {
		return "none"
	}
	return name
}

// spec is a test in ginkgo's JSON report.
type spec struct {
	ContainerHierarchyTexts []string
	LeafNodeText            string
	LeafNodeType            string
	State                   string
	RunTime                 time.Duration
	NumAttempts             int
	Failure                 struct {
		Message  string
		Location struct {
			FileName   string
			LineNumber int
		}
	}
}

func (s *spec) name() string {
	return strings.Join(append(slices.Clone(s.ContainerHierarchyTexts), s.LeafNodeText), " ")
}

// read the tests of a report, and what comes before and after all of them.
func read(file string) (specs, around []spec, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	var suites []struct{ SpecReports []spec }
	if err := json.Unmarshal(data, &suites); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, s := range suites {
		for _, one := range s.SpecReports {
			if one.LeafNodeType == "It" {
				specs = append(specs, one)
			} else {
				around = append(around, one)
			}
		}
	}
	return specs, around, nil
}

// broken says why the suite as a whole failed: its preparation, as a rule,
// without which no test runs. Each process of ginkgo reports it; the first does
// with the cause.
func broken(around []spec) error {
	for _, s := range around {
		if s.failed() {
			return fmt.Errorf("%s %s", s.LeafNodeType, s.reason())
		}
	}
	return nil
}

func (s *spec) failed() bool {
	return slices.Contains([]string{"failed", "panicked", "timedout", "aborted"}, s.State)
}

// merge what a report says into the tests; what was seen while they ran stays
// where the report says nothing.
func merge(tests []*Test, report []spec) {
	byName := map[string]*Test{}
	for _, t := range tests {
		byName[t.Name] = t
	}
	for _, s := range report {
		t := byName[s.name()]
		if t == nil {
			continue
		}
		switch {
		case s.State == "passed":
			t.State, t.Took, t.Reason = Passed, s.RunTime, ""
		// Those that a label or a focus left out were not attempted.
		case s.State == "skipped" && s.NumAttempts > 0 && s.Failure.Message != "":
			t.State, t.Took, t.Reason = Skipped, s.RunTime, s.Failure.Message
		case s.State == "interrupted":
			t.State, t.Took = NotRun, s.RunTime
		case s.failed():
			t.State, t.Took, t.Reason = Failed, s.RunTime, s.reason()
		}
	}
}

func (s *spec) reason() string {
	where := s.Failure.Location.FileName
	if _, below, found := strings.Cut(where, "/test/"); found {
		where = "test/" + below
	}
	return fmt.Sprintf("%s at %s:%d\n%s", s.State, where, s.Failure.Location.LineNumber, strings.TrimSpace(s.Failure.Message))
}
