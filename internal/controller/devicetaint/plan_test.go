package devicetaint

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func taint(key string, effect resourcev1.DeviceTaintEffect, at int64) resourcev1.DeviceTaint {
	when := metav1.Unix(at, 0)
	return resourcev1.DeviceTaint{Key: key, Value: "v", Effect: effect, TimeAdded: &when}
}

func sliceOf(name string, generation int64, devices ...resourcev1.Device) *resourcev1.ResourceSlice {
	return &resourcev1.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       resourcev1.ResourceSliceSpec{Driver: "d.example.com", Pool: resourcev1.ResourcePool{Name: "pool", Generation: generation, ResourceSliceCount: 1}, NodeName: ptr.To("n"), Devices: devices},
	}
}

func TestTaintsOf(t *testing.T) {
	const execute, schedule, none = resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone
	old := sliceOf("old", 1, resourcev1.Device{Name: "a", Taints: []resourcev1.DeviceTaint{taint("old", execute, 1)}})
	now := sliceOf("now", 2, resourcev1.Device{Name: "a", Taints: []resourcev1.DeviceTaint{taint("s", schedule, 1), taint("n", none, 1), taint("x", execute, 1)}}, resourcev1.Device{Name: "b"})
	untimed := sliceOf("untimed", 2, resourcev1.Device{Name: "c", Taints: []resourcev1.DeviceTaint{{Key: "u", Effect: execute}}})
	got := taintsOf(map[string]*resourcev1.ResourceSlice{"old": old, "now": now, "untimed": untimed}, time.Unix(7, 0))
	if len(got) != 2 || len(got["a"]) != 1 || got["a"][0].Key != "x" || !got["c"][0].TimeAdded.Time.Equal(time.Unix(7, 0)) {
		t.Error(got)
	}
	if untimed.Spec.Devices[0].Taints[0].TimeAdded != nil {
		t.Error("a shared slice was changed")
	}
	if got := taintsOf(map[string]*resourcev1.ResourceSlice{"old": old}, time.Unix(7, 0)); len(got["a"]) != 1 || got["a"][0].Key != "old" {
		t.Error(got)
	}
	if got := taintsOf(nil, time.Unix(7, 0)); len(got) != 0 {
		t.Error(got)
	}
}

func TestLeave(t *testing.T) {
	const execute = resourcev1.DeviceTaintEffectNoExecute
	all := func(seconds *int64) resourcev1.DeviceToleration {
		return resourcev1.DeviceToleration{Operator: resourcev1.DeviceTolerationOpExists, Effect: execute, TolerationSeconds: seconds}
	}
	one := func(key, value string, seconds *int64) resourcev1.DeviceToleration {
		return resourcev1.DeviceToleration{Key: key, Operator: resourcev1.DeviceTolerationOpEqual, Value: value, Effect: execute, TolerationSeconds: seconds}
	}
	result := func(name string, tolerates ...resourcev1.DeviceToleration) resourcev1.DeviceRequestAllocationResult {
		return resourcev1.DeviceRequestAllocationResult{Request: "r", Driver: "d.example.com", Pool: "pool", Device: name, Tolerations: tolerates}
	}
	claimOf := func(results ...resourcev1.DeviceRequestAllocationResult) *resourcev1.ResourceClaim {
		return &resourcev1.ResourceClaim{Status: resourcev1.ResourceClaimStatus{
			Allocation:  &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: results}},
			ReservedFor: []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "p", UID: "someone"}, {Resource: "pods", Name: "p", UID: "u"}},
		}}
	}
	stranger := claimOf(result("bad"))
	stranger.Status.ReservedFor = stranger.Status.ReservedFor[:1]
	free := claimOf(result("bad"))
	free.Status.Allocation = nil
	taints := map[device][]resourcev1.DeviceTaint{
		{"d.example.com", "pool", "bad"}:       {taint("k", execute, 100)},
		{"d.example.com", "pool", "worse"}:     {taint("k", execute, 100), taint("l", execute, 50)},
		{"d.example.com", "elsewhere", "good"}: {taint("k", execute, 100)},
	}
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}, Spec: corev1.PodSpec{NodeName: "n", ResourceClaims: []corev1.PodResourceClaim{{Name: "a", ResourceClaimName: ptr.To("a")}, {Name: "b", ResourceClaimName: ptr.To("b")}}}}
		if change != nil {
			change(p)
		}
		return p
	}
	const never = -1
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		a, b *resourcev1.ResourceClaim
		want int64
	}{
		{"good devices", pod(nil), claimOf(result("good")), nil, never},
		{"a bad one", pod(nil), claimOf(result("good"), result("bad")), nil, 100},
		{"the first of two taints", pod(nil), claimOf(result("worse")), nil, 50},
		{"the first of two claims", pod(nil), claimOf(result("bad")), claimOf(result("worse")), 50},
		{"tolerated for ever", pod(nil), claimOf(result("worse", all(nil))), nil, never},
		{"for ever by one of several", pod(nil), claimOf(result("bad", all(ptr.To[int64](5)), one("k", "v", nil))), nil, never},
		{"for some time", pod(nil), claimOf(result("bad", all(ptr.To[int64](60)), all(ptr.To[int64](30)))), nil, 130},
		{"for no time", pod(nil), claimOf(result("bad", all(ptr.To[int64](-3)))), nil, 100},
		{"one taint of two", pod(nil), claimOf(result("worse", one("l", "v", nil))), nil, 100},
		{"another value", pod(nil), claimOf(result("bad", one("k", "w", nil))), nil, 100},
		{"every effect, where a time means nothing", pod(nil), claimOf(result("bad", resourcev1.DeviceToleration{Operator: resourcev1.DeviceTolerationOpExists, TolerationSeconds: ptr.To[int64](5)})), nil, never},
		{"another effect", pod(nil), claimOf(result("bad", resourcev1.DeviceToleration{Operator: resourcev1.DeviceTolerationOpExists, Effect: resourcev1.DeviceTaintEffectNoSchedule})), nil, 100},
		{"reserved for another of its name", pod(nil), stranger, nil, never},
		{"not allocated", pod(nil), free, nil, never},
		{"no node yet", pod(func(p *corev1.Pod) { p.Spec.NodeName = "" }), claimOf(result("bad")), nil, never},
		{"ended", pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), claimOf(result("bad")), nil, never},
		{"for extended resources", pod(func(p *corev1.Pod) {
			p.Spec.ResourceClaims, p.Status.ExtendedResourceClaimStatus = nil, &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: "a"}
		}), claimOf(result("bad")), nil, 100},
	} {
		claims := map[string]*resourcev1.ResourceClaim{"a": c.a, "b": c.b}
		at, ok := leave(c.pod, func(name string) *resourcev1.ResourceClaim { return claims[name] }, func(d device) []resourcev1.DeviceTaint { return taints[d] })
		if ok != (c.want != never) || ok && at.Unix() != c.want {
			t.Errorf("%s: %v %t, want %d", c.name, at.Unix(), ok, c.want)
		}
	}
}
