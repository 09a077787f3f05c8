package simulate

import (
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/scheduler"
	"github.com/proa-dev/proa/test/controllertest"
)

// Every fifth write fails, before or after it is done; pods go while
// others are bound. In the end every pod is on a node, and no node has too many.
func TestSchedulerConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	nodes, err := makeNodes([]Shape{{Name: "n", Count: 6, Allocatable: corev1.ResourceList{corev1.ResourceCPU: mustParse("1"), corev1.ResourceMemory: mustParse("8Gi")}, Zones: []string{"a", "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		controllertest.Create(c, n)
	}
	c.Run(scheduler.New(scheduler.Config{Informers: c.Informers, Logger: controllertest.Log()}))
	rnd := rand.New(rand.NewPCG(1, 2))
	pods := client.For[*corev1.Pod](c.Conn)
	for i := range 60 {
		p := usualPod()
		p.Namespace, p.Name = corev1.NamespaceDefault, fmt.Sprint("p", i)
		controllertest.Create(c, p)
		if i%3 == 2 { // as many come as may stay
			_ = pods.Delete(t.Context(), corev1.NamespaceDefault, fmt.Sprint("p", rnd.IntN(i)), metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
		}
	}
	c.Until("all pods are on nodes", func() bool {
		on := map[string]int{}
		for _, p := range controllertest.List[*corev1.Pod](c) {
			if p.Spec.NodeName == "" {
				return false
			}
			on[p.Spec.NodeName]++
		}
		for name, n := range on {
			if n > 10 {
				t.Fatalf("%d pods of 100m are on %s, which has one CPU", n, name)
			}
		}
		return true
	})
}
