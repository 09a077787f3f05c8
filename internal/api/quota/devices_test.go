package quota

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api"
)

// known implements Devices.
type known struct {
	classes []*resourcev1.DeviceClass
	pod     *corev1.Pod
	owned   []*resourcev1.ResourceClaim
}

func (k known) Classes(visit func(*resourcev1.DeviceClass) bool) {
	for _, c := range k.classes {
		if !visit(c) {
			return
		}
	}
}
func (k known) Pod(_, name string) *corev1.Pod {
	if k.pod == nil || k.pod.Name != name {
		return nil
	}
	return k.pod
}
func (k known) OwnedBy(*corev1.Pod) []*resourcev1.ResourceClaim { return k.owned }

func deviceClass(name, extended string) *resourcev1.DeviceClass {
	c := &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if extended != "" {
		c.Spec.ExtendedResourceName = &extended
	}
	return c
}

func exactly(class string, n int64) resourcev1.DeviceRequest {
	return resourcev1.DeviceRequest{Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: n}}
}

func claimOf(name string, requests ...resourcev1.DeviceRequest) *resourcev1.ResourceClaim {
	return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: requests}}}
}

func TestUsedOfDevices(t *testing.T) {
	sub := func(class string, mode resourcev1.DeviceAllocationMode, n int64) resourcev1.DeviceSubRequest {
		return resourcev1.DeviceSubRequest{DeviceClassName: class, AllocationMode: mode, Count: n}
	}
	all := resourcev1.DeviceRequest{Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gold", AllocationMode: resourcev1.DeviceAllocationModeAll}}
	first := resourcev1.DeviceRequest{FirstAvailable: []resourcev1.DeviceSubRequest{
		sub("gold", resourcev1.DeviceAllocationModeExactCount, 3), sub("gold", resourcev1.DeviceAllocationModeExactCount, 2),
		sub("iron", resourcev1.DeviceAllocationModeAll, 0), sub("tin", "Later", 7),
	}}
	classes := known{classes: []*resourcev1.DeviceClass{deviceClass("gold", "example.com/gold"), deviceClass("iron", ""), deviceClass("other", "example.com/other")}}

	// A pod that asks for two, and a claim of four that was made for it.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Resources: corev1.ResourceRequirements{Requests: list("example.com/gold", "2", "deviceclass.resource.kubernetes.io/gold", "2")},
	}}}}
	made := func(name string, at int64) *resourcev1.ResourceClaim {
		c := claimOf(name, exactly("gold", 4))
		c.CreationTimestamp = metav1.Unix(at, 0)
		c.Annotations = map[string]string{resourcev1.ExtendedResourceClaimAnnotation: "true"}
		c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "u", Controller: ptr.To(true)}}
		return c
	}
	with := func(claim string, owned ...*resourcev1.ResourceClaim) known {
		k := classes
		k.pod, k.owned = pod.DeepCopy(), owned
		if claim != "" {
			k.pod.Status.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: claim}
		}
		return k
	}
	stranger := made("mine", 5)
	stranger.OwnerReferences[0].UID = "another"
	const four, two = "4", "2"
	gold := func(extended string) corev1.ResourceList {
		return list("gold.deviceclass.resource.k8s.io/devices", four, "requests.example.com/gold", extended, "requests.deviceclass.resource.kubernetes.io/gold", extended)
	}
	for _, c := range []struct {
		name   string
		claims []api.Object
		known  Devices
		want   corev1.ResourceList
	}{
		{"by class", []api.Object{claimOf("a", exactly("gold", 2), exactly("gold", 1), exactly("iron", 5)), claimOf("b", exactly("gold", 1))}, nil,
			list("count/resourceclaims.resource.k8s.io", "2", "gold.deviceclass.resource.k8s.io/devices", "4", "iron.deviceclass.resource.k8s.io/devices", "5", "tin.deviceclass.resource.k8s.io/devices", "0")},
		{"all there are", []api.Object{claimOf("a", all)}, nil, list("gold.deviceclass.resource.k8s.io/devices", "32")},
		{"the worst of several", []api.Object{claimOf("a", first, exactly("gold", 1))}, nil,
			list("gold.deviceclass.resource.k8s.io/devices", "4", "iron.deviceclass.resource.k8s.io/devices", "32", "tin.deviceclass.resource.k8s.io/devices", "0")},
		{"extended resources", []api.Object{claimOf("a", exactly("gold", 2), exactly("iron", 1))}, classes,
			list("requests.example.com/gold", "2", "requests.example.com/other", "0", "requests.deviceclass.resource.kubernetes.io/gold", "2", "requests.deviceclass.resource.kubernetes.io/iron", "1")},
		{"the pod says which claim is its own", []api.Object{made("mine", 5)}, with("mine"), gold(two)},
		{"it says another", []api.Object{made("mine", 5)}, with("other"), gold(four)},
		{"it says nothing yet", []api.Object{made("mine", 5)}, with("", made("mine", 5), made("younger", 6), made("same", 5)), gold(two)},
		{"and there is an older one", []api.Object{made("mine", 5)}, with("", made("older", 4)), gold(four)},
		{"one about to be made is the youngest", []api.Object{func() api.Object { c := made("mine", 0); c.CreationTimestamp = metav1.Time{}; return c }()}, with("", made("there", 6)), gold(four)},
		{"a pod of the same name", []api.Object{stranger}, with("mine"), gold(four)},
		{"no such pod", []api.Object{made("mine", 5)}, classes, gold(four)},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Hard: c.want.DeepCopy()}}
			got := Used(q, kind("resource.k8s.io", "ResourceClaim", "resourceclaims"), c.claims, c.known, time.Unix(1000, 0))
			if len(got) != len(c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
			for name, w := range c.want {
				if g := got[name]; g.Cmp(w) != 0 {
					t.Errorf("%s is %s, want %s", name, g.String(), w.String())
				}
			}
		})
	}
	claims := kind("resource.k8s.io", "ResourceClaim", "resourceclaims")
	for name, want := range map[corev1.ResourceName]bool{
		"requests.example.com/gold": true, "requests.example.com/tin": false, "requests.deviceclass.resource.kubernetes.io/iron": true,
		"requests.deviceclass.resource.kubernetes.io/tin": false, "tin.deviceclass.resource.k8s.io/devices": true, "requests.cpu": false, "pods": false,
	} {
		if Counts(claims, name, classes) != want {
			t.Errorf("claims count for %s: %t", name, !want)
		}
	}
}
