package serviceaccount_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/controller/serviceaccount"
	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with faults: every namespace has both, whatever somebody does to them.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Run(serviceaccount.New(c.Informers, func() []byte { return []byte("CA") }, controllertest.Log()))
	for _, name := range []string{"a", "b", "z"} {
		controllertest.Create(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	all := func() bool {
		for _, ns := range controllertest.List[*corev1.Namespace](c) {
			m := controllertest.Get[*corev1.ConfigMap](c, ns.Name, serviceaccount.RootCAName)
			if ns.DeletionTimestamp == nil && (m == nil || len(m.Data) != 1 || m.Data["ca.crt"] != "CA" || controllertest.Get[*corev1.ServiceAccount](c, ns.Name, "default") == nil) {
				return false
			}
		}
		return true
	}
	c.Settles("all have both", all)
	controllertest.Delete[*corev1.ServiceAccount](c, "a", "default", metav1.DeleteOptions{})
	controllertest.Delete[*corev1.ConfigMap](c, "b", serviceaccount.RootCAName, metav1.DeleteOptions{})
	controllertest.Change(c, "default", serviceaccount.RootCAName, "", func(m *corev1.ConfigMap) { m.Data = map[string]string{"x": "y"} })
	c.Settles("all have both again", all)
	controllertest.Delete[*corev1.Namespace](c, "", "z", metav1.DeleteOptions{})
	c.Settles("it is known to go", all)
	controllertest.Delete[*corev1.ServiceAccount](c, "z", "default", metav1.DeleteOptions{})
	c.Settles("one that goes gets nothing", func() bool { return all() && controllertest.Get[*corev1.ServiceAccount](c, "z", "default") == nil })
}
