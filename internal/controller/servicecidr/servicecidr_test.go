package servicecidr

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api/networking"
	"github.com/proa-dev/proa/test/controllertest"
)

func cidr(name string, ranges ...string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: ranges}}
}

func service(name, ip string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec:       corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

func address(name string, labels map[string]string) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: "x"}}}
}

func TestOrphans(t *testing.T) {
	kept := map[string]string{networkingv1.LabelManagedBy: networking.OfServices}
	gone, all := cidr("gone", "10.1.0.0/24"), []*networkingv1.ServiceCIDR{cidr("gone", "10.1.0.0/24"), cidr("other", "10.2.0.0/16")}
	for name, c := range map[string]struct {
		all       []*networkingv1.ServiceCIDR
		addresses []*networkingv1.IPAddress
		want      bool
	}{
		"nobody has an address":       {all: all},
		"somebody has":                {all: all, addresses: []*networkingv1.IPAddress{address("10.1.0.7", kept)}, want: true},
		"somebody has one of another": {all: all, addresses: []*networkingv1.IPAddress{address("10.2.0.7", kept)}},
		"it is not a Service's":       {all: all, addresses: []*networkingv1.IPAddress{address("10.1.0.7", nil)}},
		"another range has it too":    {all: append(all, cidr("same", "10.1.0.0/24")), addresses: []*networkingv1.IPAddress{address("10.1.0.7", kept)}},
		"a part of it is in another":  {all: append(all, cidr("part", "10.1.0.0/29")), addresses: []*networkingv1.IPAddress{address("10.1.0.7", kept)}},
		"a part of it is in no other": {all: append(all, cidr("part", "10.1.0.0/29")), addresses: []*networkingv1.IPAddress{address("10.1.0.9", kept)}, want: true},
		"a larger one has it":         {all: append(all, cidr("large", "10.0.0.0/8")), addresses: []*networkingv1.IPAddress{address("10.1.0.9", kept)}},
	} {
		if got := orphans(gone, c.all, c.addresses); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestConverges(t *testing.T) {
	for _, fail := range []int{0, 30} {
		t.Run(fmt.Sprint("of a hundred writes fail ", fail), func(t *testing.T) {
			c := controllertest.New(t, fail)
			it := New(c.Informers, controllertest.Log())
			var ahead atomic.Int64 // of the clock: what is left of the grace is not waited for
			it.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			controllertest.Create(c, cidr("kubernetes", "10.1.0.0/24"))
			controllertest.Create(c, service("a", "10.1.0.1"))
			// One that a server before this one left, and one that is somebody else's.
			controllertest.Create(c, address("10.1.0.9", map[string]string{networkingv1.LabelManagedBy: networking.OfServices}))
			controllertest.Create(c, address("10.9.0.9", nil))
			c.Run(it)

			ready := func(name string) (metav1.ConditionStatus, string) {
				if r := controllertest.Get[*networkingv1.ServiceCIDR](c, "", name); r != nil && len(r.Status.Conditions) == 1 {
					return r.Status.Conditions[0].Status, r.Status.Conditions[0].Reason
				}
				return "", ""
			}
			owner := func(ip string) string {
				if a := controllertest.Get[*networkingv1.IPAddress](c, "", ip); a != nil {
					return a.Spec.ParentRef.Namespace + "/" + a.Spec.ParentRef.Name + " " + a.Labels[networkingv1.LabelManagedBy] + " " + a.Labels[networkingv1.LabelIPAddressFamily]
				}
				return ""
			}
			const a = "default/a ipallocator.k8s.io IPv4"
			c.Until("everything is as it should be", func() bool {
				status, _ := ready("kubernetes")
				return status == metav1.ConditionTrue && owner("10.1.0.1") == a && owner("10.1.0.9") == "" && owner("10.9.0.9") != ""
			})
			controllertest.Delete[*networkingv1.IPAddress](c, "", "10.1.0.1", metav1.DeleteOptions{})
			c.Until("an address that was deleted is there again", func() bool { return owner("10.1.0.1") == a })

			controllertest.Delete[*networkingv1.ServiceCIDR](c, "", "kubernetes", metav1.DeleteOptions{})
			c.Until("a range that is needed stays", func() bool {
				status, reason := ready("kubernetes")
				return status == metav1.ConditionFalse && reason == networkingv1.ServiceCIDRReasonTerminating
			})
			controllertest.Create(c, cidr("second", "10.2.0.0/24"))
			c.Until("a range of another is ready", func() bool { status, _ := ready("second"); return status == metav1.ConditionTrue })
			ahead.Store(int64(time.Minute))
			controllertest.Delete[*corev1.Service](c, "default", "a", metav1.DeleteOptions{})
			c.Until("the range goes with the last that has of it", func() bool {
				return owner("10.1.0.1") == "" && controllertest.Get[*networkingv1.ServiceCIDR](c, "", "kubernetes") == nil
			})
		})
	}
}
