package daemonset_test

import (
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/controller/daemonset"
	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with every fifth write failing: on every node, then rolled, then
// rolled by surge, then kept off a node.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Kubelet(nil)
	c.Run(daemonset.New(c.Informers, controllertest.Log()))
	for i := range 4 {
		controllertest.Create(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i), Labels: map[string]string{"n": fmt.Sprint(i)}}})
	}
	app := map[string]string{"app": "a"}
	controllertest.Create(c, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: app},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "one"}}}},
		},
	})
	reached := func(nodes int, image string) func() bool {
		return func() bool {
			ds := controllertest.Get[*appsv1.DaemonSet](c, "default", "a")
			st := ds.Status
			n := int32(nodes)
			if st.ObservedGeneration != ds.Generation || st.DesiredNumberScheduled != n || st.NumberAvailable != n || st.UpdatedNumberScheduled != n {
				return false
			}
			pods := controllertest.List[*corev1.Pod](c)
			for _, p := range pods {
				if p.Spec.Containers[0].Image != image {
					return false
				}
			}
			return len(pods) == nodes
		}
	}
	change := func(f func(*appsv1.DaemonSet)) { controllertest.Change(c, "default", "a", "", f) }
	c.Settles("four", reached(4, "one"))
	controllertest.Change(c, "default", "a", "status", func(d *appsv1.DaemonSet) {
		d.Status = appsv1.DaemonSetStatus{DesiredNumberScheduled: 9, ObservedGeneration: d.Generation}
	})
	c.Settles("four, whatever somebody says", reached(4, "one"))
	change(func(d *appsv1.DaemonSet) { d.Spec.Template.Spec.Containers[0].Image = "two" })
	c.Until("four new", reached(4, "two"))
	change(func(d *appsv1.DaemonSet) {
		d.Spec.Template.Spec.Containers[0].Image = "one"
		d.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxSurge: ptr.To(intstr.FromInt32(2)), MaxUnavailable: ptr.To(intstr.FromInt32(0))}
	})
	c.Until("four as before", reached(4, "one"))
	controllertest.Change(c, "", "n1", "", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoExecute}}
	})
	c.Until("three", reached(3, "one"))
	p := controllertest.List[*corev1.Pod](c)[0]
	controllertest.Change(c, "default", p.Name, "status", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
	c.Settles("a failed one is replaced", func() bool {
		return controllertest.Get[*corev1.Pod](c, "default", p.Name) == nil && reached(3, "one")()
	})
}
