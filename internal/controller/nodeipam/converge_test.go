package nodeipam

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with faults: every node has a range of its own, as long as there are
// any; who found none gets the one that another leaves.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Run(New(c.Informers, Config{ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/21"), netip.MustParsePrefix("fd00::/61")}}, controllertest.Log()))
	given := func(n int) func() bool {
		return func() bool {
			seen := map[string]bool{}
			for _, node := range controllertest.List[*corev1.Node](c) {
				if len(node.Spec.PodCIDRs) == 0 {
					continue
				}
				if len(node.Spec.PodCIDRs) != 2 || node.Spec.PodCIDR != node.Spec.PodCIDRs[0] || seen[node.Spec.PodCIDRs[0]] || seen[node.Spec.PodCIDRs[1]] {
					t.Fatalf("%s has %v, which somebody has", node.Name, node.Spec.PodCIDRs)
				}
				seen[node.Spec.PodCIDRs[0]], seen[node.Spec.PodCIDRs[1]] = true, true
			}
			return len(seen) == 2*n
		}
	}
	for i := range 10 {
		controllertest.Create(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i)}})
	}
	c.Settles("eight ranges for ten nodes", given(8))
	for _, n := range controllertest.List[*corev1.Node](c)[:3] {
		controllertest.Delete[*corev1.Node](c, "", n.Name, metav1.DeleteOptions{})
	}
	c.Settles("seven for seven", given(7))
}
