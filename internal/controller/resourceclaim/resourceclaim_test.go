package resourceclaim

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/gc"
	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with faults: every pod gets one claim of its own and keeps it, also
// when somebody deletes it; what ends gives back what it had.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Run(New(c.Informers, controllertest.Log()), gc.New(c.Shaky, controllertest.Log()))
	const pods = 8
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }
	spec := resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "c"}}}}}
	controllertest.Create(c, &resourcev1.ResourceClaim{ObjectMeta: meta("shared"), Spec: spec})
	for i := range pods {
		controllertest.Create(c, &corev1.Pod{ObjectMeta: meta(fmt.Sprint("p", i)), Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: "i"}}, TerminationGracePeriodSeconds: ptr.To[int64](0),
			ResourceClaims: []corev1.PodResourceClaim{
				{Name: "a", ResourceClaimTemplateName: ptr.To("t")}, {Name: "b", ResourceClaimTemplateName: ptr.To("t")}, {Name: "s", ResourceClaimName: ptr.To("shared")},
			},
		}})
	}
	controllertest.Create(c, &resourcev1.ResourceClaimTemplate{ObjectMeta: meta("t"), Spec: resourcev1.ResourceClaimTemplateSpec{Spec: spec}})
	have := func() bool {
		claims := map[string]*resourcev1.ResourceClaim{}
		for _, one := range controllertest.List[*resourcev1.ResourceClaim](c) {
			claims[one.Name] = one
		}
		for _, p := range controllertest.List[*corev1.Pod](c) {
			if len(p.Status.ResourceClaimStatuses) != 2 {
				return false
			}
			for _, s := range p.Status.ResourceClaimStatuses {
				if one := claims[*s.ResourceClaimName]; one == nil || !metav1.IsControlledBy(one, p) || one.DeletionTimestamp != nil {
					return false
				}
			}
		}
		return true
	}
	c.Settles("each has its claims", have)
	if n := len(controllertest.List[*resourcev1.ResourceClaim](c)); n != 2*pods+1 {
		t.Errorf("%d claims, not %d", n, 2*pods+1)
	}
	victim := *controllertest.Get[*corev1.Pod](c, "default", "p3").Status.ResourceClaimStatuses[0].ResourceClaimName
	controllertest.Delete[*resourcev1.ResourceClaim](c, "default", victim, metav1.DeleteOptions{})
	c.Settles("another in the place of one that was deleted", have)

	// Somebody plays the scheduler.
	allocate := func(name string) {
		controllertest.Change(c, "default", name, "", func(one *resourcev1.ResourceClaim) { one.Finalizers = []string{resourcev1.Finalizer} })
		controllertest.Change(c, "default", name, "status", func(one *resourcev1.ResourceClaim) {
			one.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{Request: "r", Driver: "d.example.com", Pool: "p", Device: "d"}}}}
		})
	}
	for _, one := range controllertest.List[*resourcev1.ResourceClaim](c) {
		allocate(one.Name)
	}
	for i := range pods {
		p := controllertest.Get[*corev1.Pod](c, "default", fmt.Sprint("p", i))
		if _, err := c.Conn.Post(t.Context(), client.For[*corev1.Pod](c.Conn).Kind(), "default", p.Name, "binding", &corev1.Binding{ObjectMeta: meta(p.Name), Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}); err != nil {
			t.Fatal(err)
		}
	}
	consumers := func(name string) int {
		return len(controllertest.Get[*resourcev1.ResourceClaim](c, "default", name).Status.ReservedFor)
	}
	c.Settles("each is among the consumers of its claims", func() bool {
		for _, one := range controllertest.List[*resourcev1.ResourceClaim](c) {
			if one.Name != "shared" && len(one.Status.ReservedFor) != 1 {
				return false
			}
		}
		return consumers("shared") == pods
	})
	for i := range pods {
		if i%2 == 0 {
			controllertest.Change(c, "default", fmt.Sprint("p", i), "status", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
		} else {
			controllertest.Delete[*corev1.Pod](c, "default", fmt.Sprint("p", i), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		}
	}
	c.Settles("only the named claim is left, and free", func() bool {
		all := controllertest.List[*resourcev1.ResourceClaim](c)
		return len(all) == 1 && all[0].Name == "shared" && len(all[0].Status.ReservedFor) == 0 && all[0].Status.Allocation == nil
	})
	allocate("shared")
	controllertest.Delete[*resourcev1.ResourceClaim](c, "default", "shared", metav1.DeleteOptions{})
	c.Settles("it goes when it is deleted", func() bool { return len(controllertest.List[*resourcev1.ResourceClaim](c)) == 0 })
}
