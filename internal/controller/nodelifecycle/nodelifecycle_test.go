package nodelifecycle

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/controller/owned"
	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with faults: taints follow conditions and come back when somebody
// takes them off; pods leave when their time is up; a silent node is unreachable.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	ctl := New(c.Informers, controllertest.Log())
	var ahead atomic.Int64 // of the real time
	ctl.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	c.Kubelet(nil)
	ready := func(name string, is corev1.ConditionStatus) {
		controllertest.Change(c, "", name, "status", func(n *corev1.Node) {
			now := metav1.NewTime(ctl.now())
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: is, LastHeartbeatTime: now, LastTransitionTime: now}}
		})
	}
	for _, name := range []string{"a", "b", "c"} {
		controllertest.Create(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
		ready(name, corev1.ConditionTrue)
	}
	c.Run(ctl)
	taints := func(node string, want ...string) func() bool {
		return func() bool {
			var have []string
			for _, t := range controllertest.Get[*corev1.Node](c, "", node).Spec.Taints {
				have = append(have, t.Key+":"+string(t.Effect))
			}
			slices.Sort(have)
			return slices.Equal(have, want)
		}
	}
	pod := func(name, node string, tolerates ...corev1.Toleration) {
		controllertest.Create(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: corev1.PodSpec{
			NodeName: node, Tolerations: tolerates, Containers: []corev1.Container{{Name: "c", Image: "i"}},
		}})
	}
	there := func(name string) *corev1.Pod {
		p := controllertest.Get[*corev1.Pod](c, "default", name)
		if p == nil || p.DeletionTimestamp != nil {
			return nil
		}
		return p
	}
	always := corev1.Toleration{Operator: corev1.TolerationOpExists}
	pod("stays", "a", always)
	pod("goes", "a")
	c.Settles("all is well", func() bool {
		return taints("a")() && there("stays") != nil && owned.Ready(there("stays")) && there("goes") != nil
	})

	ready("a", corev1.ConditionFalse)
	const notReady, unreachable = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
	down := taints("a", notReady+":NoExecute", notReady+":NoSchedule")
	c.Settles("not ready", func() bool {
		return down() && there("goes") == nil && there("stays") != nil && !owned.Ready(there("stays"))
	})
	controllertest.Change(c, "", "a", "", func(n *corev1.Node) { n.Spec.Taints = nil })
	c.Settles("its taints are back", down)
	ready("a", corev1.ConditionTrue)
	controllertest.Change(c, "", "a", "", func(n *corev1.Node) { n.Spec.Unschedulable = true })
	cordoned := taints("a", "node.kubernetes.io/unschedulable:NoSchedule")
	c.Settles("ready, and cordoned", cordoned)
	controllertest.Change(c, "", "a", "", func(n *corev1.Node) { n.Spec.Taints = nil })
	c.Settles("still cordoned", cordoned)

	pod("short", "b", corev1.Toleration{Key: "k", Effect: corev1.TaintEffectNoExecute, Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To[int64](1)})
	pod("long", "b", corev1.Toleration{Key: "k", Effect: corev1.TaintEffectNoExecute, Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To[int64](1000)})
	controllertest.Change(c, "", "b", "", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoExecute}}
	})
	c.Settles("one has stayed as long as it may", func() bool { return there("short") == nil && there("long") != nil })

	ahead.Store(int64(5 * time.Minute))
	ready("b", corev1.ConditionTrue)
	heard := func() bool {
		ctl.mu.Lock()
		defer ctl.mu.Unlock()
		return ctl.now().Sub(ctl.heard["b"]) < time.Minute
	}
	c.Until("b is heard of", heard)
	controllertest.Change(c, "", "c", "", func(n *corev1.Node) { n.Labels = map[string]string{"wake": "up"} })
	c.Settles("c has fallen silent", func() bool {
		r := condition(controllertest.Get[*corev1.Node](c, "", "c"), corev1.NodeReady)
		return r.Status == corev1.ConditionUnknown && r.Reason == "NodeStatusUnknown" && slices.ContainsFunc(controllertest.Get[*corev1.Node](c, "", "c").Spec.Taints, func(t corev1.Taint) bool {
			return t.Key == unreachable && t.Effect == corev1.TaintEffectNoSchedule
		})
	})
	ready("c", corev1.ConditionTrue)
	c.Settles("c is back", taints("c"))
}
