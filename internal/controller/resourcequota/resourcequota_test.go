package resourcequota_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/controller/resourcequota"
	"github.com/proa-dev/proa/test/controllertest"
)

func hard(list map[corev1.ResourceName]string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for k, v := range list {
		out[k] = resource.MustParse(v)
	}
	return out
}

// used says whether the status of the quota q has exactly this.
func used(c *controllertest.Cluster, want map[corev1.ResourceName]string) func() bool {
	return func() bool {
		q := controllertest.Get[*corev1.ResourceQuota](c, "default", "q")
		if len(q.Status.Used) != len(want) || len(q.Status.Hard) != len(q.Spec.Hard) {
			return false
		}
		for k, v := range want {
			if x, y := q.Status.Used[k], resource.MustParse(v); x.Cmp(y) != 0 {
				return false
			}
		}
		return true
	}
}

// TestConverges with faults: the usage follows what is there and what is limited,
// and is put right when somebody else writes it.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Run(resourcequota.New(c.Informers, nil, controllertest.Log()))
	controllertest.Create(c, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q", Namespace: "default"}, Spec: corev1.ResourceQuotaSpec{
		Hard: hard(map[corev1.ResourceName]string{"pods": "10", "requests.cpu": "2", "count/configmaps": "5"}),
	}})
	used := func(want map[corev1.ResourceName]string) func() bool { return used(c, want) }
	c.Settles("nothing used", used(map[corev1.ResourceName]string{"pods": "0", "requests.cpu": "0", "count/configmaps": "0"}))
	for i := range 4 {
		controllertest.Create(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i), Namespace: "default"}, Spec: corev1.PodSpec{Containers: []corev1.Container{
			{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: hard(map[corev1.ResourceName]string{"cpu": "100m"})}},
		}}})
		controllertest.Create(c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("m", i), Namespace: "default"}})
	}
	four := map[corev1.ResourceName]string{"pods": "4", "requests.cpu": "400m", "count/configmaps": "4"}
	c.Settles("four of each", used(four))
	controllertest.Change(c, "default", "q", "status", func(q *corev1.ResourceQuota) { q.Status = corev1.ResourceQuotaStatus{} })
	c.Settles("four of each again", used(four))
	controllertest.Change(c, "default", "p0", "status", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	controllertest.Delete[*corev1.Pod](c, "default", "p1", metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
	controllertest.Delete[*corev1.ConfigMap](c, "default", "m0", metav1.DeleteOptions{})
	c.Settles("fewer", used(map[corev1.ResourceName]string{"pods": "2", "requests.cpu": "200m", "count/configmaps": "3"}))
	controllertest.Change(c, "default", "q", "", func(q *corev1.ResourceQuota) {
		q.Spec.Hard = hard(map[corev1.ResourceName]string{"pods": "1", "secrets": "1"})
	})
	controllertest.Create(c, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default"}})
	c.Settles("others are limited", used(map[corev1.ResourceName]string{"pods": "2", "secrets": "1"}))
}

// TestCountsDevices with faults: claims count by class, and for the extended
// resource of a class as long as it names one, but not twice what their pod counts for.
func TestCountsDevices(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Run(resourcequota.New(c.Informers, nil, controllertest.Log()))
	const devices, gold, implicit = "c.deviceclass.resource.k8s.io/devices", "requests.example.com/gold", "requests.deviceclass.resource.kubernetes.io/c"
	controllertest.Create(c, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q", Namespace: "default"}, Spec: corev1.ResourceQuotaSpec{
		Hard: hard(map[corev1.ResourceName]string{devices: "10", gold: "10", implicit: "10"}),
	}})
	pod := controllertest.Create(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, Spec: corev1.PodSpec{Containers: []corev1.Container{
		{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{
			Requests: hard(map[corev1.ResourceName]string{"example.com/gold": "2"}), Limits: hard(map[corev1.ResourceName]string{"example.com/gold": "2"}),
		}},
	}}})
	for _, name := range []string{"mine", "other"} {
		controllertest.Create(c, &resourcev1.ResourceClaim{
			ObjectMeta: metav1.ObjectMeta{
				Name: name, Namespace: "default", Annotations: map[string]string{resourcev1.ExtendedResourceClaimAnnotation: "true"},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID, Controller: ptr.To(true)}},
			},
			Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "c", Count: 3}}}}},
		})
	}
	c.Settles("no such class", used(c, map[corev1.ResourceName]string{devices: "6", gold: "2", implicit: "0"}))
	controllertest.Create(c, &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: ptr.To("example.com/gold")}})
	c.Settles("the older one is taken for the pod's", used(c, map[corev1.ResourceName]string{devices: "6", gold: "6", implicit: "6"}))
	tell := func(claim string) {
		controllertest.Change(c, "default", "p", "status", func(p *corev1.Pod) {
			p.Status.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: claim, RequestMappings: []corev1.ContainerExtendedResourceRequest{{ContainerName: "c", ResourceName: "example.com/gold", RequestName: "r"}}}
		})
	}
	tell("none")
	c.Settles("the pod says that neither is", used(c, map[corev1.ResourceName]string{devices: "6", gold: "8", implicit: "6"}))
	controllertest.Change(c, "", "c", "", func(class *resourcev1.DeviceClass) { class.Spec.ExtendedResourceName = nil })
	c.Settles("the class stands for nothing any more", used(c, map[corev1.ResourceName]string{devices: "6", gold: "2", implicit: "6"}))
	controllertest.Delete[*resourcev1.ResourceClaim](c, "default", "other", metav1.DeleteOptions{})
	c.Settles("one is gone", used(c, map[corev1.ResourceName]string{devices: "3", gold: "2", implicit: "3"}))
}
