package simulate

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/gc"
	claims "github.com/proa-dev/proa/internal/controller/resourceclaim"
	"github.com/proa-dev/proa/internal/scheduler"
	"github.com/proa-dev/proa/test/controllertest"
)

// Every fifth write fails, before or after it is done, while pods that need a device
// each come and go. In the end each pod is where its device is, no device has two
// owners, and what went gave back what it had.
func TestDevicesConverge(t *testing.T) {
	c := controllertest.New(t, 20)
	const nodes, devices = 4, 3
	made, err := makeNodes([]Shape{{Name: "n", Count: nodes, Allocatable: corev1.ResourceList{corev1.ResourceCPU: mustParse("8"), corev1.ResourceMemory: mustParse("64Gi")}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range made {
		controllertest.Create(c, n)
		s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: n.Name}, Spec: resourcev1.ResourceSliceSpec{
			Driver: "d.example.com", NodeName: &n.Name, Pool: resourcev1.ResourcePool{Name: n.Name, ResourceSliceCount: 1},
		}}
		for i := range devices {
			s.Spec.Devices = append(s.Spec.Devices, resourcev1.Device{Name: fmt.Sprint("d", i)})
		}
		controllertest.Create(c, s)
	}
	controllertest.Create(c, &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: ptr.To("example.com/d")}})
	controllertest.Create(c, &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceDefault, Name: "t"}, Spec: resourcev1.ResourceClaimTemplateSpec{Spec: resourcev1.ResourceClaimSpec{
		Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "c"}}}},
	}}})
	soon := scheduler.DefaultConfiguration() // of five writes for one pod, one fails
	soon.BackoffFirst, soon.BackoffMost = 10*time.Millisecond, 100*time.Millisecond
	c.Run(scheduler.New(scheduler.Config{Informers: c.Informers, Configuration: soon, Logger: controllertest.Log()}), claims.New(c.Informers, controllertest.Log()), gc.New(c.Shaky, controllertest.Log()))
	come := func(i int) {
		p := usualPod()
		p.Namespace, p.Name = corev1.NamespaceDefault, fmt.Sprint("p", i)
		if i%3 == 0 {
			d := corev1.ResourceList{"example.com/d": mustParse("1")}
			p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: d, Limits: d}
		} else {
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "d", ResourceClaimTemplateName: ptr.To("t")}}
		}
		controllertest.Create(c, p)
	}
	const all = nodes * devices
	for i := range 2 * all { // twice as many as there are devices for
		come(i)
	}
	for i := range all {
		c.Until("one more pod has its device", func() bool {
			for _, p := range controllertest.List[*corev1.Pod](c) {
				if p.Spec.NodeName != "" {
					controllertest.Change(c, p.Namespace, p.Name, "status", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
					controllertest.Delete[*corev1.Pod](c, p.Namespace, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
					return true
				}
			}
			return false
		})
		if i%4 == 3 { // in the meantime somebody looks at a device
			controllertest.Change(c, "", made[i%nodes].Name, "", func(s *resourcev1.ResourceSlice) {
				s.Spec.Devices[0].Attributes = map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"looks": {IntValue: ptr.To(int64(i))}}
			})
		}
	}
	c.Settles("all that are left are on nodes, with a device each", func() bool {
		pods := controllertest.List[*corev1.Pod](c)
		for _, p := range pods {
			if p.Spec.NodeName == "" {
				return false
			}
		}
		owners := map[string]string{} // of devices
		for _, rc := range controllertest.List[*resourcev1.ResourceClaim](c) {
			if rc.Status.Allocation == nil { // made, though nobody answered: it goes with its pod
				continue
			}
			r := rc.Status.Allocation.Devices.Results[0]
			if other := owners[r.Pool+"/"+r.Device]; other != "" {
				t.Fatalf("%s/%s is allocated to %s and %s", r.Pool, r.Device, other, rc.Name)
			}
			owners[r.Pool+"/"+r.Device] = rc.Name
		}
		return len(pods) == all && len(owners) == all && placedRight(t, c, pods)
	})
}

// placedRight: every pod is on the node of its device, which is reserved for it alone.
func placedRight(t *testing.T, c *controllertest.Cluster, pods []*corev1.Pod) bool {
	for _, p := range pods {
		name := ""
		if x := p.Status.ExtendedResourceClaimStatus; x != nil {
			name = x.ResourceClaimName
		} else {
			for _, s := range p.Status.ResourceClaimStatuses {
				name = *s.ResourceClaimName
			}
		}
		rc, err := client.For[*resourcev1.ResourceClaim](c.Conn).Get(t.Context(), p.Namespace, name)
		if err != nil {
			t.Fatalf("%s is on %s without its claim: %v", p.Name, p.Spec.NodeName, err)
		}
		if rc.Status.Allocation.Devices.Results[0].Pool != p.Spec.NodeName {
			t.Fatalf("%s is on %s, its device on %s", p.Name, p.Spec.NodeName, rc.Status.Allocation.Devices.Results[0].Pool)
		}
		if !resourceclaim.IsReservedForPod(p, rc, false) || len(rc.Status.ReservedFor) != 1 {
			return false
		}
	}
	return true
}
