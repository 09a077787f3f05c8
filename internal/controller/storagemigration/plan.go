package storagemigration

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	migrationv1beta1 "k8s.io/api/storagemigration/v1beta1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
)

type migration = migrationv1beta1.StorageVersionMigration

// plan for the migrations of one resource: of these one runs at a time, and the
// oldest first.
type plan struct {
	ended []*migration // they have come to an end but say still that they run
	run   *migration   // nil = none
}

func decide(all []*migration) plan {
	var p plan
	for _, m := range all {
		switch {
		case over(m) && is(m, migrationv1beta1.MigrationRunning):
			p.ended = append(p.ended, m)
		case over(m):
		case p.run == nil || before(m, p.run):
			p.run = m
		}
	}
	slices.SortFunc(p.ended, func(a, b *migration) int { return strings.Compare(a.Name, b.Name) })
	return p
}

// before: one that runs goes on, else the older comes first.
func before(a, b *migration) bool {
	if runs := is(a, migrationv1beta1.MigrationRunning); runs != is(b, migrationv1beta1.MigrationRunning) {
		return runs
	}
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name)) < 0
}

func is(m *migration, c migrationv1beta1.MigrationConditionType) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(c))
}

func over(m *migration) bool {
	return is(m, migrationv1beta1.MigrationSucceeded) || is(m, migrationv1beta1.MigrationFailed)
}

// settling is how long a resource may not be known that a migration names: it may
// have been defined a moment ago.
const settling = time.Minute

// unfit says why a resource cannot be migrated, "" = it can; or how long to wait
// until that is sure. k nil = it is not served.
func unfit(m *migration, k *api.Kind, now time.Time) (why string, again time.Duration) {
	if k == nil || k.Virtual {
		if again := m.CreationTimestamp.Add(settling).Sub(now); again > 0 {
			return "", again
		}
		return "resource does not exist in discovery", 0
	}
	needed := []string{"update", "patch", "list"}
	for _, v := range needed {
		if !k.Does(v) {
			r := k.GroupVersionResource()
			return fmt.Sprintf("resource %q does not support discovery operations: %v", r.String(), needed), 0
		}
	}
	return "", 0
}

// with a condition that is true, and was never there before.
func with(m *migration, c migrationv1beta1.MigrationConditionType, reason, message string, now metav1.Time) *migration {
	out := m.DeepCopy()
	if meta.FindStatusCondition(out.Status.Conditions, string(c)) == nil {
		out.Status.Conditions = append(out.Status.Conditions, metav1.Condition{Type: string(c), Status: metav1.ConditionTrue, Reason: reason, Message: message, LastTransitionTime: now})
	}
	return out
}

// stopped is a migration that has ended and says so.
func stopped(m *migration) *migration {
	out := m.DeepCopy()
	meta.SetStatusCondition(&out.Status.Conditions, metav1.Condition{
		Type: string(migrationv1beta1.MigrationRunning), Status: metav1.ConditionFalse, Reason: "MigrationCompleted", Message: "Migration completed", ObservedGeneration: m.Generation,
	})
	return out
}

type definition = apiextensionsv1.CustomResourceDefinition

// storageVersion of a definition.
func storageVersion(d *definition) string {
	for _, v := range d.Spec.Versions {
		if v.Storage {
			return v.Name
		}
	}
	return ""
}

// migrating is a definition whose objects are being migrated; nil = it says so.
func migrating(d *definition, by string, now metav1.Time) *definition {
	return saying(d, apiextensionsv1.ConditionTrue, "MigrationRunning", "Migration "+by+" is running", now)
}

// migrated is a definition whose objects have been: once all of them are in its
// storage version there are no others. If it was changed meanwhile nobody knows.
// nil = it says so.
func migrated(d *definition, succeeded bool, now metav1.Time) *definition {
	was := conditionOf(d)
	if was != nil && was.Status == apiextensionsv1.ConditionFalse {
		return nil
	}
	if !succeeded {
		return saying(d, apiextensionsv1.ConditionFalse, "MigrationFailed", "The migration has failed", now)
	}
	if was == nil || was.ObservedGeneration != d.Generation {
		return saying(d, apiextensionsv1.ConditionFalse, "MigrationSucceeded", "The migration has succeeded but the stored versions have not been updated due to a generation mismatch", now)
	}
	out := saying(d, apiextensionsv1.ConditionFalse, "MigrationSucceeded", "The migration has succeeded and the stored versions have been updated", now)
	out.Status.StoredVersions = []string{storageVersion(d)}
	return out
}

func conditionOf(d *definition) *apiextensionsv1.CustomResourceDefinitionCondition {
	for i := range d.Status.Conditions {
		if d.Status.Conditions[i].Type == apiextensionsv1.StorageMigrating {
			return &d.Status.Conditions[i]
		}
	}
	return nil
}

func saying(d *definition, status apiextensionsv1.ConditionStatus, reason, message string, now metav1.Time) *definition {
	c := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.StorageMigrating, Status: status, Reason: reason, Message: message, LastTransitionTime: now, ObservedGeneration: d.Generation,
	}
	was := conditionOf(d)
	if was != nil && was.Status == status && was.Reason == reason && was.Message == message && was.ObservedGeneration == d.Generation {
		return nil
	}
	out := d.DeepCopy()
	if was == nil {
		out.Status.Conditions = append(out.Status.Conditions, c)
	} else {
		*conditionOf(out) = c
	}
	return out
}
