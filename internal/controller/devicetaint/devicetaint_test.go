package devicetaint

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/owned"
	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with faults: who does not tolerate a taint goes at once, who does
// for a time when it is over, others stay; what is taken back in time is forgotten.
func TestConverges(t *testing.T) {
	for _, fail := range []int{0, 20} {
		t.Run(fmt.Sprint(fail, " of 100 writes fail"), func(t *testing.T) { converges(t, fail) })
	}
}

func converges(t *testing.T, fail int) {
	c := controllertest.New(t, fail)
	ctl := New(c.Informers, c.Shaky, controllertest.Log())
	var ahead atomic.Int64 // of the real time
	ctl.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	c.Run(ctl)
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }
	execute := func(key string) []resourcev1.DeviceTaint {
		return []resourcev1.DeviceTaint{{Key: key, Effect: resourcev1.DeviceTaintEffectNoExecute}}
	}
	pod := func(name, device string, tolerates ...resourcev1.DeviceToleration) {
		p := controllertest.Create(c, &corev1.Pod{ObjectMeta: meta(name), Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: "i"}}, TerminationGracePeriodSeconds: ptr.To[int64](30),
			ResourceClaims: []corev1.PodResourceClaim{{Name: "a", ResourceClaimName: ptr.To(name)}},
		}})
		controllertest.Create(c, &resourcev1.ResourceClaim{ObjectMeta: meta(name), Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
			{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "c", Tolerations: tolerates}},
		}}}})
		controllertest.Change(c, "default", name, "status", func(claim *resourcev1.ResourceClaim) {
			claim.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{
				{Request: "r", Driver: "d.example.com", Pool: "pool", Device: device, Tolerations: tolerates},
			}}}
			claim.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: name, UID: p.UID}}
		})
		if _, err := c.Conn.Post(t.Context(), client.For[*corev1.Pod](c.Conn).Kind(), "default", name, "binding", &corev1.Binding{ObjectMeta: meta(name), Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}); err != nil {
			t.Fatal(err)
		}
	}
	during := func(seconds *int64) resourcev1.DeviceToleration {
		return resourcev1.DeviceToleration{Operator: resourcev1.DeviceTolerationOpExists, Effect: resourcev1.DeviceTaintEffectNoExecute, TolerationSeconds: seconds}
	}
	leaves := func(name string) bool {
		p := controllertest.Get[*corev1.Pod](c, "default", name)
		if p == nil || p.DeletionTimestamp == nil {
			return p == nil
		}
		d := owned.Condition(p, corev1.DisruptionTarget)
		return d != nil && d.Status == corev1.ConditionTrue && d.Reason == "DeletionByDeviceTaintManager"
	}
	stays := func(name string) bool {
		p := controllertest.Get[*corev1.Pod](c, "default", name)
		return p != nil && p.DeletionTimestamp == nil && owned.Condition(p, corev1.DisruptionTarget) == nil
	}
	said := func(name, what string) bool {
		if fail > 0 { // events are lost then, since nobody writes them again
			return true
		}
		for _, e := range controllertest.List[*corev1.Event](c) {
			if e.InvolvedObject.Name == name && e.Reason == "DeviceTaintManagerEviction" && strings.Contains(e.Message, what) && e.Source.Component == "device-taint-eviction-controller" {
				return true
			}
		}
		return false
	}

	controllertest.Create(c, sliceOf("s", 1, resourcev1.Device{Name: "one"}, resourcev1.Device{Name: "two"}, resourcev1.Device{Name: "three", Taints: execute("early")}))
	pod("other", "two")
	pod("goes", "one")
	pod("always", "one", during(nil))
	pod("while", "one", during(ptr.To[int64](600)))
	pod("late", "three")
	c.Settles("the pod of a device that was tainted before goes", func() bool { return leaves("late") && stays("goes") && stays("while") })
	taint := func(device int, taints []resourcev1.DeviceTaint) {
		controllertest.Change(c, "", "s", "", func(s *resourcev1.ResourceSlice) { s.Spec.Devices[device].Taints = taints })
	}
	taint(0, execute("k"))
	c.Settles("who does not tolerate it goes", func() bool {
		return leaves("goes") && stays("always") && stays("while") && stays("other")
	})
	c.Until("an event says so", func() bool { return said("goes", "Marking for deletion") })

	waits := func() bool {
		ctl.mu.Lock()
		defer ctl.mu.Unlock()
		return len(ctl.waiting["default/while"]) > 0
	}
	c.Until("one waits", waits)
	taint(0, nil)
	c.Settles("the taint is gone in time", func() bool { return !waits() && stays("while") })
	c.Until("an event says so", func() bool { return said("while", "Cancelling deletion") })

	ahead.Store(int64(20 * time.Minute))
	taint(0, execute("k"))
	c.Settles("its time is over", func() bool { return leaves("while") && stays("always") && stays("other") })

	newer := sliceOf("s2", 2, resourcev1.Device{Name: "two", Taints: execute("k")})
	controllertest.Create(c, newer)
	c.Settles("a newer generation of the pool", func() bool { return leaves("other") && stays("always") })
}
