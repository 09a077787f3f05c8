package namespace

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with faults: a namespace goes once everything in it has, which a
// finalizer holds up; what its conditions say is put right.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Shaky.Reads.Store(1000) // each pass lists every kind
	c.Kubelet(nil)
	c.Run(New(c.Informers, controllertest.Log()))
	controllertest.Create(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
	meta := func(i int) metav1.ObjectMeta { return metav1.ObjectMeta{Name: fmt.Sprint("a", i), Namespace: "x"} }
	for i := range 3 {
		controllertest.Create(c, &corev1.Pod{ObjectMeta: meta(i), Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
		controllertest.Create(c, &corev1.ConfigMap{ObjectMeta: meta(i)})
		controllertest.Create(c, &corev1.Secret{ObjectMeta: meta(i)})
	}
	controllertest.Change(c, "x", "a1", "", func(m *corev1.ConfigMap) { m.Finalizers = []string{"example.com/held"} })
	controllertest.Delete[*corev1.Namespace](c, "", "x", metav1.DeleteOptions{})
	held := func() bool {
		ns := controllertest.Get[*corev1.Namespace](c, "", "x")
		at := slices.IndexFunc(ns.Status.Conditions, func(c corev1.NamespaceCondition) bool { return c.Type == corev1.NamespaceFinalizersRemaining })
		return ns.Status.Phase == corev1.NamespaceTerminating && at >= 0 && ns.Status.Conditions[at].Status == corev1.ConditionTrue &&
			ns.Status.Conditions[at].Message == "Some content in the namespace has finalizers remaining: example.com/held in 1 resource instances" &&
			len(controllertest.List[*corev1.Pod](c))+len(controllertest.List[*corev1.Secret](c)) == 0 && len(controllertest.List[*corev1.ConfigMap](c)) == 1
	}
	c.Settles("held by a finalizer", held)
	controllertest.Change(c, "", "x", "status", func(ns *corev1.Namespace) { ns.Status.Conditions = nil })
	c.Settles("it says so again", held)
	controllertest.Change(c, "x", "a1", "", func(m *corev1.ConfigMap) { m.Finalizers = nil })
	c.Settles("gone", func() bool { return controllertest.Get[*corev1.Namespace](c, "", "x") == nil })
}

func TestConditions(t *testing.T) {
	now := time.Unix(1000, 0)
	for what, c := range map[string]struct {
		left *leftover
		want []corev1.NamespaceConditionType // that are true
	}{
		"nothing left":    {&leftover{}, nil},
		"objects left":    {&leftover{remaining: []string{"pods. has 1 resource instances"}}, []corev1.NamespaceConditionType{corev1.NamespaceContentRemaining}},
		"one is held":     {&leftover{remaining: []string{"x"}, finalizers: map[string]int{"f": 1}}, []corev1.NamespaceConditionType{corev1.NamespaceContentRemaining, corev1.NamespaceFinalizersRemaining}},
		"deletion failed": {&leftover{failed: []string{"no"}}, []corev1.NamespaceConditionType{corev1.NamespaceDeletionContentFailure}},
	} {
		ns := &corev1.Namespace{}
		ns.Status.Conditions = conditions(ns, c.left, now)
		var got []corev1.NamespaceConditionType
		for _, x := range ns.Status.Conditions {
			if x.Status == corev1.ConditionTrue {
				got = append(got, x.Type)
			}
		}
		if len(ns.Status.Conditions) != 5 || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", what, ns.Status.Conditions)
		}
		if again := conditions(ns, c.left, now.Add(time.Hour)); again != nil {
			t.Errorf("%s: the same is written again: %v", what, again)
		}
	}
}

func TestPatience(t *testing.T) {
	for held, want := range map[time.Duration]time.Duration{0: 500 * time.Millisecond, 16 * time.Second: 2 * time.Second, time.Hour: 8 * time.Second} {
		if got := patience(held); got != want {
			t.Errorf("after %v: %v", held, got)
		}
	}
}
