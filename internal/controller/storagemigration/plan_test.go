package storagemigration

import (
	"strings"
	"testing"
	"time"

	migrationv1beta1 "k8s.io/api/storagemigration/v1beta1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
)

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func made(name string, after time.Duration, conditions ...migrationv1beta1.MigrationConditionType) *migration {
	m := &migration{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(begin.Add(after))}}
	for _, c := range conditions {
		m.Status.Conditions = append(m.Status.Conditions, metav1.Condition{Type: string(c), Status: metav1.ConditionTrue})
	}
	return m
}

func TestDecide(t *testing.T) {
	const running, succeeded, failed = migrationv1beta1.MigrationRunning, migrationv1beta1.MigrationSucceeded, migrationv1beta1.MigrationFailed
	for what, c := range map[string]struct {
		all   []*migration
		run   string
		ended string
	}{
		"none":                        {},
		"a new one":                   {[]*migration{made("a", 0)}, "a", ""},
		"the older of two":            {[]*migration{made("a", 2), made("b", 1)}, "b", ""},
		"of one age":                  {[]*migration{made("b", 1), made("a", 1)}, "a", ""},
		"what runs goes on":           {[]*migration{made("a", 1), made("b", 2, running)}, "b", ""},
		"what has ended is over":      {[]*migration{made("a", 1, succeeded), made("b", 2, failed)}, "", ""},
		"it has ended and runs still": {[]*migration{made("b", 1, running, succeeded), made("a", 2, running, failed), made("c", 3)}, "c", "a b"},
	} {
		p := decide(c.all)
		run := ""
		if p.run != nil {
			run = p.run.Name
		}
		var ended []string
		for _, m := range p.ended {
			ended = append(ended, m.Name)
		}
		if run != c.run || strings.Join(ended, " ") != c.ended {
			t.Errorf("%s: %q runs, %q have ended", what, run, ended)
		}
	}
	m := stopped(made("a", 0, running, succeeded))
	if is(m, running) || !is(m, succeeded) || len(m.Status.Conditions) != 2 {
		t.Errorf("%+v", m.Status)
	}
}

func TestUnfit(t *testing.T) {
	now := begin.Add(10 * time.Second)
	kind := func(verbs ...string) *api.Kind {
		return &api.Kind{GroupVersionKind: schema.GroupVersionKind{Version: "v1", Kind: "T"}, Resource: "things", Verbs: verbs}
	}
	for what, c := range map[string]struct {
		k     *api.Kind
		now   time.Time
		why   string
		again time.Duration
	}{
		"fit":               {kind(), now, "", 0},
		"not served yet":    {nil, now, "", 50 * time.Second},
		"not served at all": {nil, now.Add(time.Minute), "resource does not exist in discovery", 0},
		"it can be read":    {kind("get", "list", "watch"), now, `resource "/v1, Resource=things" does not support discovery operations: [update patch list]`, 0},
		"a review":          {&api.Kind{Virtual: true}, now.Add(time.Minute), "resource does not exist in discovery", 0},
	} {
		if why, again := unfit(made("m", 0), c.k, c.now); why != c.why || again != c.again {
			t.Errorf("%s: %q, %v", what, why, again)
		}
	}
}

func TestDefinition(t *testing.T) {
	d := &definition{ObjectMeta: metav1.ObjectMeta{Generation: 3}}
	d.Spec.Versions = []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1"}, {Name: "v2", Storage: true}}
	d.Status.StoredVersions = []string{"v1", "v2"}
	now := metav1.NewTime(begin)
	if out := migrated(d, true, now); len(out.Status.StoredVersions) != 2 {
		t.Errorf("nobody knows since when: %v", out.Status.StoredVersions)
	}
	d = migrating(d, "m", now)
	if c := conditionOf(d); c.Status != apiextensionsv1.ConditionTrue || c.Message != "Migration m is running" || c.ObservedGeneration != 3 {
		t.Errorf("%+v", c)
	}
	if migrating(d, "m", metav1.Now()) != nil {
		t.Error("said twice")
	}
	if out := migrated(d, false, now); len(out.Status.StoredVersions) != 2 || conditionOf(out).Reason != "MigrationFailed" {
		t.Errorf("it failed: %+v", out.Status)
	}
	out := migrated(d, true, now)
	if len(out.Status.StoredVersions) != 1 || out.Status.StoredVersions[0] != "v2" || len(out.Status.Conditions) != 1 || conditionOf(out).Status != apiextensionsv1.ConditionFalse {
		t.Errorf("%+v", out.Status)
	}
	if migrated(out, true, now) != nil {
		t.Error("said twice")
	}
	d.Generation = 4
	if out := migrated(d, true, now); len(out.Status.StoredVersions) != 2 || !strings.Contains(conditionOf(out).Message, "generation mismatch") {
		t.Errorf("it was changed meanwhile: %+v", out.Status)
	}
}
