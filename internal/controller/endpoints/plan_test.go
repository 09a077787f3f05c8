package endpoints

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

func sampleService() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default", UID: "s"},
		Spec:       corev1.ServiceSpec{IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, Ports: []corev1.ServicePort{{Name: "web", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("http")}}},
	}
}

// samplePods from a number on, all ready, in zone a or b by turns.
func samplePods(svc *corev1.Service, from, n int, port int32) []backend {
	var all []*corev1.Pod
	for i := from; i < from+n; i++ {
		all = append(all, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%04d", i), Namespace: "default", UID: types.UID(fmt.Sprint(i))},
			Spec:       corev1.PodSpec{NodeName: string(rune('a' + i%2)), Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: port}}}}},
			Status: corev1.PodStatus{
				Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.0.%d.%d", i>>8, i&255),
				Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			},
		})
	}
	return backends(svc, all, func(name string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{corev1.LabelTopologyZone: "zone-" + name}}}
	})
}

// carried out, a plan leads to these slices.
func carried(have []*discoveryv1.EndpointSlice, p slicePlan, made *int) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for _, s := range have {
		if slices.Contains(p.remove, s) {
			continue
		}
		for _, u := range p.update {
			if u.Name == s.Name {
				s = u
			}
		}
		out = append(out, s)
	}
	for _, s := range p.create {
		*made++
		s.Name = fmt.Sprint("s-", *made)
		out = append(out, s)
	}
	return out
}

func sizes(all []*discoveryv1.EndpointSlice) []int {
	var n []int
	for _, s := range all {
		n = append(n, len(s.Endpoints))
	}
	return n
}

// TestPlanSlices: slices hold a hundred each, few of them change, and a second look
// finds nothing to do.
func TestPlanSlices(t *testing.T) {
	svc := sampleService()
	var have []*discoveryv1.EndpointSlice
	made := 0
	other := sampleService()
	other.UID = "earlier"
	for _, step := range []struct {
		what                   string
		pods                   []backend
		create, update, remove int
		want                   []int
	}{
		{"none", nil, 1, 0, 0, []int{0}},
		{"the first", samplePods(svc, 0, 3, 80), 1, 0, 1, []int{3}},
		{"many", samplePods(svc, 0, 250, 80), 2, 1, 0, []int{100, 100, 50}},
		{"one less", samplePods(svc, 1, 249, 80), 0, 1, 0, []int{99, 100, 50}},
		{"another in its room", samplePods(svc, 1, 250, 80), 0, 1, 0, []int{100, 100, 50}},
		{"many less", samplePods(svc, 100, 151, 80), 0, 1, 0, []int{1, 100, 50}},
		{"another port", samplePods(svc, 100, 151, 81), 2, 0, 3, []int{100, 51}},
		{"none any more", nil, 1, 0, 2, []int{0}},
	} {
		p := planSlices(svc, step.pods, have, time.Time{})
		if len(p.create) != step.create || len(p.update) != step.update || len(p.remove) != step.remove {
			t.Errorf("%s: %d created, %d changed, %d removed", step.what, len(p.create), len(p.update), len(p.remove))
		}
		have = carried(have, p, &made)
		if got := sizes(have); !slices.Equal(got, step.want) {
			t.Errorf("%s: %v", step.what, got)
		}
		if p := planSlices(svc, step.pods, have, time.Time{}); len(p.create)+len(p.update)+len(p.remove) > 0 {
			t.Errorf("%s: then again %+v", step.what, p)
		}
		if p := planSlices(other, step.pods, have, time.Time{}); len(p.remove) != len(have) || len(p.update) > 0 {
			t.Errorf("%s: another Service takes over %d and changes %d", step.what, len(have)-len(p.remove), len(p.update))
		}
	}
}

func TestHints(t *testing.T) {
	svc := sampleService()
	for near, want := range map[string]string{"": "", corev1.ServiceTrafficDistributionPreferClose: "zone-a", corev1.ServiceTrafficDistributionPreferSameZone: "zone-a", corev1.ServiceTrafficDistributionPreferSameNode: "zone-a a"} {
		if svc.Spec.TrafficDistribution = nil; near != "" {
			svc.Spec.TrafficDistribution = &near
		}
		e := planSlices(svc, samplePods(svc, 0, 2, 80), nil, time.Time{}).create[0].Endpoints[0]
		got := ""
		if e.Hints != nil {
			got = e.Hints.ForZones[0].Name
			for _, n := range e.Hints.ForNodes {
				got += " " + n.Name
			}
		}
		if got != want {
			t.Errorf("%q: for %q", near, got)
		}
	}
}

// TestConditions: what a pod is to those who read slices, and to those who read Endpoints.
func TestConditions(t *testing.T) {
	for what, c := range map[string]struct {
		change              func(*corev1.Pod)
		publish             bool
		there, ready, serve bool // in slices
		addresses, unready  int  // in Endpoints
	}{
		"ready":                       {func(*corev1.Pod) {}, false, true, true, true, 1, 0},
		"not ready":                   {func(p *corev1.Pod) { p.Status.Conditions = nil }, false, true, false, false, 0, 1},
		"not ready, published":        {func(p *corev1.Pod) { p.Status.Conditions = nil }, true, true, true, false, 1, 0},
		"on its way out":              {func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.Now()) }, false, true, false, true, 0, 0},
		"on its way out, published":   {func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.Now()) }, true, true, true, true, 1, 0},
		"has ended":                   {func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, true, false, false, false, 0, 0},
		"has no address":              {func(p *corev1.Pod) { p.Status.PodIP = "" }, true, false, false, false, 0, 0},
		"has an address of the other": {func(p *corev1.Pod) { p.Status.PodIP = "fd00::1" }, true, false, false, false, 0, 0},
	} {
		svc := sampleService()
		svc.Spec.PublishNotReadyAddresses = c.publish
		p := samplePods(svc, 0, 1, 80)[0].pod
		c.change(p)
		all := backends(svc, []*corev1.Pod{p}, func(string) *corev1.Node { return nil })
		got := planSlices(svc, all, nil, time.Time{}).create[0].Endpoints
		if (len(got) == 1) != c.there || c.there && (*got[0].Conditions.Ready != c.ready || *got[0].Conditions.Serving != c.serve) {
			t.Errorf("%s: %+v", what, got)
		}
		yes, no := 0, 0
		for _, s := range planEndpoints(svc, all, nil, time.Time{}).Subsets {
			yes, no = yes+len(s.Addresses), no+len(s.NotReadyAddresses)
		}
		if yes != c.addresses || no != c.unready {
			t.Errorf("%s: %d and %d addresses", what, yes, no)
		}
	}
}
