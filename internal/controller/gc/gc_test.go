package gc_test

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/controller/gc"
	"github.com/proa-dev/proa/test/controllertest"
)

type world struct{ *controllertest.Cluster }

func newWorld(t *testing.T) world {
	c := controllertest.New(t, 20)
	c.Shaky.Reads.Store(1000) // each look at what depends on an object lists every kind
	c.Run(gc.New(c.Shaky, controllertest.Log()))
	return world{c}
}

// config makes a ConfigMap that others own, and in whose place nobody is to come.
func (w world) config(name string, owners ...api.Object) *corev1.ConfigMap {
	w.T.Helper()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	for _, o := range owners {
		m.OwnerReferences = append(m.OwnerReferences, ref(o))
	}
	return controllertest.Create(w.Cluster, m)
}

func ref(o api.Object) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: o.GetName(), UID: o.GetUID(), BlockOwnerDeletion: ptr.To(true)}
}

func (w world) delete(name string, p metav1.DeletionPropagation) {
	w.T.Helper()
	controllertest.Delete[*corev1.ConfigMap](w.Cluster, "default", name, metav1.DeleteOptions{PropagationPolicy: &p})
}

// left are the names of the ConfigMaps that are there, with the number of their owners.
func (w world) left(want ...string) func() bool {
	return func() bool {
		var have []string
		for _, m := range controllertest.List[*corev1.ConfigMap](w.Cluster) {
			have = append(have, fmt.Sprintf("%s %d", m.Name, len(m.OwnerReferences)))
		}
		return slices.Equal(have, want)
	}
}

// TestConverges with faults: what goes, goes with all that it owned, or leaves it
// to nobody, or waits for it; and what has another owner stays.
func TestConverges(t *testing.T) {
	w := newWorld(t)
	for _, p := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
		a := w.config("a")
		b := w.config("b", a)
		for i := range 4 {
			w.config(fmt.Sprint("c", i), b)
		}
		other := w.config("other")
		w.config("shared", a, other)
		w.delete("a", p)
		w.Settles(fmt.Sprint("gone, ", p), w.left("other 0", "shared 1"))
		w.delete("other", p)
		w.Settles("all gone", w.left())
	}
	a := w.config("a")
	b := w.config("b", a)
	w.config("c", b)
	w.delete("a", metav1.DeletePropagationOrphan)
	w.Settles("left to nobody", w.left("b 0", "c 1"))
	w.delete("b", metav1.DeletePropagationBackground)
	w.Settles("all gone", w.left())

	w.config("lost", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "never", UID: "never"}})
	w.Settles("nobody's", w.left())
}

// TestCircle: two that own each other, and are to wait for each other.
func TestCircle(t *testing.T) {
	w := newWorld(t)
	a := w.config("a")
	b := w.config("b", a)
	controllertest.Change(w.Cluster, "default", "a", "", func(m *corev1.ConfigMap) { m.OwnerReferences = []metav1.OwnerReference{ref(b)} })
	w.delete("a", metav1.DeletePropagationForeground)
	w.Settles("both gone", w.left())
}

// TestReplaced: an owner goes and another of its name comes at once. What the
// first owned is not the second's.
func TestReplaced(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		a := w.config("a")
		for i := range 5 {
			w.config(fmt.Sprint("b", i), a)
		}
		w.delete("a", metav1.DeletePropagationBackground)
		w.config("mine", w.config("a"))
		w.Settles("the second alone has what it owns", w.left("a 0", "mine 1"))
		w.delete("a", metav1.DeletePropagationBackground)
		w.Settles("nothing is left", w.left())
	}
}

// TestNotServed: nothing is known of an owner whose kind is not served.
func TestNotServed(t *testing.T) {
	w := newWorld(t)
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m", Namespace: "default", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "example.com/v1", Kind: "Thing", Name: "t", UID: types.UID("t")},
	}}}
	controllertest.Create(w.Cluster, m)
	w.Settles("it stays", w.left("m 1"))
}
