package storagemigration

import (
	"strings"
	"testing"

	migrationv1beta1 "k8s.io/api/storagemigration/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type change = func(*migrationv1beta1.StorageVersionMigration)

func of(changes ...change) *migrationv1beta1.StorageVersionMigration {
	m := &migrationv1beta1.StorageVersionMigration{ObjectMeta: metav1.ObjectMeta{Name: "m"}}
	m.Spec.Resource = metav1.GroupResource{Group: "apps", Resource: "deployments"}
	for _, f := range changes {
		f(m)
	}
	return m
}

func is(c migrationv1beta1.MigrationConditionType, status metav1.ConditionStatus) change {
	return func(m *migrationv1beta1.StorageVersionMigration) {
		m.Status.Conditions = append(m.Status.Conditions, metav1.Condition{Type: string(c), Status: status, Reason: "R", LastTransitionTime: metav1.Now()})
	}
}

func at(revision string) change {
	return func(m *migrationv1beta1.StorageVersionMigration) { m.Status.ResourceVersion = revision }
}

func resource(group, name string) change {
	return func(m *migrationv1beta1.StorageVersionMigration) {
		m.Spec.Resource = metav1.GroupResource{Group: group, Resource: name}
	}
}

func TestValidate(t *testing.T) {
	good := is(migrationv1beta1.MigrationSucceeded, metav1.ConditionTrue)
	bad := is(migrationv1beta1.MigrationFailed, metav1.ConditionTrue)
	for what, c := range map[string]struct {
		now, old *migrationv1beta1.StorageVersionMigration
		sub      string
		want     string // in the error, "" = none
	}{
		"good":                  {of(), nil, "", ""},
		"of the core group":     {of(resource("", "secrets")), nil, "", ""},
		"no resource":           {of(resource("apps", "")), nil, "", "resource is required to be set"},
		"a wrong resource":      {of(resource("apps", "Deployments/x")), nil, "", "spec.resource.resource"},
		"a wrong group":         {of(resource("Apps!", "deployments")), nil, "", "spec.resource.group"},
		"another resource":      {of(resource("", "secrets")), of(), "", "field is immutable"},
		"running":               {of(is(migrationv1beta1.MigrationRunning, metav1.ConditionTrue), at("5")), of(), "status", ""},
		"another revision":      {of(at("6")), of(at("5")), "status", "field is immutable"},
		"no revision":           {of(at("x5")), of(), "status", "status.resourceVersion"},
		"both":                  {of(good, bad), of(), "status", "Both success and failed"},
		"no success any more":   {of(), of(good), "status", "Success condition cannot be set to false"},
		"no failure any more":   {of(), of(bad), "status", "Failed condition cannot be set to false"},
		"a condition of no use": {of(is("x y", metav1.ConditionTrue)), of(), "status", "status.conditions[0].type"},
	} {
		err := validateMigration(c.now, c.old, c.sub).ToAggregate()
		switch {
		case c.want == "" && err != nil, c.want != "" && err == nil:
			t.Errorf("%s: %v", what, err)
		case err != nil && !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v, not %s", what, err, c.want)
		}
	}
}

func TestResetAndRow(t *testing.T) {
	k := Kinds()[0]
	m := of(at("5"))
	if k.Reset(m, nil, ""); m.Status.ResourceVersion != "" {
		t.Error("a new one has a status")
	}
	m = of(resource("", "x"), at("5"))
	if k.Reset(m, of(), "status"); m.Spec.Resource.Resource != "deployments" || m.Status.ResourceVersion != "5" {
		t.Errorf("%+v", m)
	}
	if k.Reset(m, of(), ""); m.Status.ResourceVersion != "" {
		t.Error("the status is changed beside it")
	}
	for want, c := range map[string]change{
		"Unknown": is("Other", metav1.ConditionTrue),
		"Running": is(migrationv1beta1.MigrationRunning, metav1.ConditionTrue),
		"Succeeded": func(m *migrationv1beta1.StorageVersionMigration) {
			is(migrationv1beta1.MigrationRunning, metav1.ConditionFalse)(m)
			is(migrationv1beta1.MigrationSucceeded, metav1.ConditionTrue)(m)
		},
	} {
		if row := k.Row(of(c)); row[1] != "deployments.apps" || row[2] != want {
			t.Errorf("%v, not %s", row, want)
		}
	}
}
