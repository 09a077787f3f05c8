package storagemigration_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	migrationv1beta1 "k8s.io/api/storagemigration/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/controller/storagemigration"
	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with faults: migrations of a resource come to their end one after
// the other, and those of what cannot be migrated fail. What is stored afterwards
// test/state sees.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	for i := range 30 {
		controllertest.Create(c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("c", i), Namespace: "default"}})
	}
	create := func(name, group, resource string) {
		controllertest.Create(c, &migrationv1beta1.StorageVersionMigration{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: migrationv1beta1.StorageVersionMigrationSpec{Resource: metav1.GroupResource{Group: group, Resource: resource}}})
	}
	create("one", "", "configmaps")
	create("two", "", "configmaps")
	create("read-only", "metrics.k8s.io", "nodes")
	create("unknown", "example.com", "things")
	before := controllertest.List[*corev1.ConfigMap](c)
	c.Run(storagemigration.New(c.Informers, controllertest.Log()))
	has := func(name string, condition migrationv1beta1.MigrationConditionType) bool {
		return meta.IsStatusConditionTrue(controllertest.Get[*migrationv1beta1.StorageVersionMigration](c, "", name).Status.Conditions, string(condition))
	}
	c.Settles("both are through, one waits for its resource", func() bool {
		for _, name := range []string{"one", "two"} {
			if !has(name, migrationv1beta1.MigrationSucceeded) || has(name, migrationv1beta1.MigrationRunning) {
				return false
			}
		}
		return has("unknown", migrationv1beta1.MigrationRunning)
	})
	one := controllertest.Get[*migrationv1beta1.StorageVersionMigration](c, "", "one").Status
	if one.ResourceVersion == "" || len(one.Conditions) != 2 || one.Conditions[1].Reason != "StorageVersionMigrationSucceeded" || one.Conditions[0].Reason != "MigrationCompleted" {
		t.Errorf("%+v", one)
	}
	for i, now := range controllertest.List[*corev1.ConfigMap](c) {
		if was := before[i]; now.ResourceVersion != was.ResourceVersion || len(now.ManagedFields) != len(was.ManagedFields) {
			t.Errorf("%s was stored as it would be now, and was changed: %v, %v", now.Name, was, now)
		}
	}
}
