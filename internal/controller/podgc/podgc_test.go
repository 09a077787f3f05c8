package podgc

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/test/controllertest"
)

func pod(name, node string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
}

// TestConverges with faults: pods of nodes that are gone or out of service, pods
// that never got a node, and ended ones that are too many.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	gc := New(c.Informers, controllertest.Log())
	gc.quarantine, gc.mostEnded = 20*time.Millisecond, 3
	c.Run(gc)
	left := func(want ...string) func() bool {
		return func() bool {
			var have []string
			for _, p := range controllertest.List[*corev1.Pod](c) {
				have = append(have, p.Name)
			}
			return slices.Equal(have, want)
		}
	}
	for _, name := range []string{"a", "b"} {
		controllertest.Create(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	controllertest.Create(c, pod("on-a", "a"))
	controllertest.Create(c, pod("on-b", "b"))
	controllertest.Create(c, pod("on-c", "c"))
	free := pod("free", "")
	free.Finalizers = []string{"example.com/held"}
	controllertest.Create(c, free)
	c.Settles("of a node that never was", left("free", "on-a", "on-b"))
	controllertest.Delete[*corev1.Pod](c, "default", "free", metav1.DeleteOptions{})
	c.Settles("one without a node has failed", func() bool {
		return controllertest.Get[*corev1.Pod](c, "default", "free").Status.Phase == corev1.PodFailed
	})
	controllertest.Change(c, "default", "free", "", func(p *corev1.Pod) { p.Finalizers = nil })
	c.Settles("and goes", left("on-a", "on-b"))
	controllertest.Delete[*corev1.Node](c, "", "a", metav1.DeleteOptions{})
	c.Settles("of a node that is gone", left("on-b"))
	controllertest.Delete[*corev1.Pod](c, "default", "on-b", metav1.DeleteOptions{})
	c.Settles("a node stops its own pods", left("on-b"))
	controllertest.Change(c, "", "b", "", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoExecute}}
	})
	c.Settles("unless it is out of service", left())
	for i := range 7 {
		controllertest.Create(c, pod(fmt.Sprint("ended", i), "b"))
		controllertest.Change(c, "default", fmt.Sprint("ended", i), "status", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	}
	c.Settles("three ended ones are kept", func() bool { return len(controllertest.List[*corev1.Pod](c)) == 3 })
}

func TestOutOfService(t *testing.T) {
	for what, c := range map[string]struct {
		taint string
		ready corev1.ConditionStatus
		want  bool
	}{
		"as it should be":      {"", corev1.ConditionTrue, false},
		"marked, but ready":    {corev1.TaintNodeOutOfService, corev1.ConditionTrue, false},
		"marked and not ready": {corev1.TaintNodeOutOfService, corev1.ConditionUnknown, true},
		"only not ready":       {corev1.TaintNodeUnreachable, corev1.ConditionUnknown, false},
		"marked, never heard":  {corev1.TaintNodeOutOfService, "", true},
	} {
		n := &corev1.Node{}
		if c.taint != "" {
			n.Spec.Taints = []corev1.Taint{{Key: c.taint}}
		}
		if c.ready != "" {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: c.ready}}
		}
		if got := outOfService(n); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}
