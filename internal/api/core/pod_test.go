package core

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/index"
)

func TestPodGrace(t *testing.T) {
	five := int64(5)
	p := plain(t)
	if got := podGrace(p, nil); got != 0 {
		t.Errorf("on no node: %d", got)
	}
	p.Spec.NodeName = "n1"
	if got := podGrace(p, nil); got != 30 {
		t.Errorf("on a node: %d", got)
	}
	if got := podGrace(p, &metav1.DeleteOptions{GracePeriodSeconds: &five}); got != 5 {
		t.Errorf("asked for 5: %d", got)
	}
	p.Status.Phase = corev1.PodSucceeded
	if got := podGrace(p, nil); got != 0 {
		t.Errorf("ended: %d", got)
	}
}

func TestPodGenerationMovesWithTheSpec(t *testing.T) {
	old := plain(t)
	createPod(old)
	if old.Generation != 1 || old.Status.Phase != corev1.PodPending || old.Status.QOSClass != corev1.PodQOSBestEffort {
		t.Fatalf("created: %d %+v", old.Generation, old.Status)
	}
	for name, c := range map[string]struct {
		sub    string
		change func(*corev1.Pod)
		want   int64
	}{
		"label":            {"", func(p *corev1.Pod) { p.Labels["a"] = "b" }, 1},
		"image":            {"", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "b" }, 2},
		"status":           {"status", func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning; p.Spec.Containers[0].Image = "b" }, 1},
		"generation":       {"", func(p *corev1.Pod) { p.Generation = 7 }, 1},
		"debug":            {"ephemeralcontainers", func(p *corev1.Pod) { p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{}} }, 2},
		"debug not else":   {"ephemeralcontainers", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "b" }, 1},
		"resize":           {"resize", func(p *corev1.Pod) { p.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{}} }, 2},
		"resize not else":  {"resize", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "b" }, 1},
		"status not there": {"", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, 1},
	} {
		p := old.DeepCopy()
		c.change(p)
		resetPod(p, old, c.sub)
		resetPod(p, old, c.sub) // once more changes nothing
		if p.Generation != c.want {
			t.Errorf("%s: generation %d, want %d", name, p.Generation, c.want)
		}
		if c.sub != "status" && !reflect.DeepEqual(p.Status, old.Status) {
			t.Errorf("%s: status %+v", name, p.Status)
		}
	}
}

func TestObservedGenerationIsKept(t *testing.T) {
	old := plain(t)
	createPod(old)
	old.Status.ObservedGeneration = 3
	old.Status.Conditions = []corev1.PodCondition{{Type: "a", ObservedGeneration: 1}, {Type: "a", ObservedGeneration: 2}, {Type: "b", ObservedGeneration: 5}}
	p := old.DeepCopy()
	p.Status = corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: "b"}, {Type: "a"}, {Type: "a"}, {Type: "a"}, {Type: "c"}}}
	resetPod(p, old, "status")
	var got []int64
	for _, c := range p.Status.Conditions {
		got = append(got, c.ObservedGeneration)
	}
	if want := []int64{5, 1, 2, 0, 0}; !reflect.DeepEqual(got, want) || p.Status.ObservedGeneration != 3 {
		t.Errorf("%v %d", got, p.Status.ObservedGeneration)
	}
}

func TestPodFieldsAndIndexes(t *testing.T) {
	k, p := podKind(), plain(t)
	controller := true
	p.OwnerReferences = []metav1.OwnerReference{{UID: types.UID("7"), Controller: &controller}}
	p.Spec.NodeName = "n1"
	p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}
	set := k.Fields(p)
	for name, want := range map[string]string{"spec.nodeName": "n1", "spec.restartPolicy": "Always", "status.podIP": "10.0.0.1", "status.podIPs": "10.0.0.1,fd00::1", "spec.hostNetwork": "false"} {
		if set[name] != want {
			t.Errorf("%s = %q", name, set[name])
		}
	}
	if got := k.Indexes[index.Owner](p); len(got) != 1 || got[0] != "7" {
		t.Error(got)
	}
	if got := k.Indexes["spec.nodeName"](p); len(got) != 1 || got[0] != "n1" {
		t.Error(got)
	}
}

func TestPullPolicy(t *testing.T) {
	for image, want := range map[string]corev1.PullPolicy{
		"nginx": corev1.PullAlways, "nginx:latest": corev1.PullAlways, "nginx:1": corev1.PullIfNotPresent,
		"localhost:5000/a": corev1.PullAlways, "localhost:5000/a:2": corev1.PullIfNotPresent, "Foo": corev1.PullIfNotPresent,
		"": corev1.PullIfNotPresent, "a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855": corev1.PullIfNotPresent,
		"[::1]:5000/a": corev1.PullAlways, "a//b": corev1.PullIfNotPresent, "a___b": corev1.PullIfNotPresent, "a/b:": corev1.PullIfNotPresent,
	} {
		if got := pullPolicy(image); got != want {
			t.Errorf("%q: %s, want %s", image, got, want)
		}
	}
}

// Either shape of an event holds what the other does.
func TestEventShapes(t *testing.T) {
	ev := fromYAML[*corev1.Event](t, `
metadata: {name: a, namespace: b}
involvedObject: {kind: Pod, name: p}
reason: r
message: m
source: {component: c, host: h}
firstTimestamp: "2026-01-01T00:00:00Z"
lastTimestamp: "2026-01-02T00:00:00Z"
count: 3
type: Normal
eventTime: "2026-01-01T00:00:00.000000Z"
series: {count: 2, lastObservedTime: "2026-01-01T00:00:00.000000Z"}
action: x
related: {kind: Node, name: n}
reportingComponent: rc
reportingInstance: ri
`)
	shape := eventKind().Shapes[0]
	there := shape.From(ev.DeepCopy()).(*eventsv1.Event)
	if there.Note != "m" || there.Regarding.Name != "p" || there.DeprecatedCount != 3 {
		t.Errorf("%+v", there)
	}
	if back := shape.To(there); !reflect.DeepEqual(back, api.Object(ev)) {
		t.Errorf("%+v\n%+v", back, ev)
	}
	if got := len(shape.Validate(ev, nil, "")); got != 4 {
		t.Errorf("%d errors: the old fields are not for events.k8s.io", got)
	}
	moved := ev.DeepCopy()
	moved.Series.Count = 3
	if e := shape.Validate(moved, ev, ""); e != nil {
		t.Error(e)
	}
	moved.Reason = "other"
	if e := shape.Validate(moved, ev, ""); len(e) != 1 {
		t.Error(e)
	}
}

// What a type no longer uses is let go, what was allocated is kept.
func TestServiceReset(t *testing.T) {
	old := fromYAML[*corev1.Service](t, `
metadata: {name: a, namespace: b}
spec: {type: NodePort, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{name: a, port: 80, nodePort: 30080}]}
`)
	s := old.DeepCopy()
	s.Spec.ClusterIP, s.Spec.ClusterIPs, s.Spec.Ports[0].NodePort = "", nil, 0
	resetService(s, old, "")
	if s.Spec.ClusterIP != "10.96.0.1" || len(s.Spec.ClusterIPs) != 1 || s.Spec.Ports[0].NodePort != 30080 {
		t.Errorf("allocated: %+v", s.Spec)
	}
	s = old.DeepCopy()
	s.Spec.Type = corev1.ServiceTypeClusterIP
	resetService(s, old, "")
	if s.Spec.Ports[0].NodePort != 0 || s.Spec.ExternalTrafficPolicy != "" {
		t.Errorf("node port: %+v", s.Spec)
	}
	s = old.DeepCopy()
	s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "example.com"
	resetService(s, old, "")
	if s.Spec.ClusterIP != "" || s.Spec.ClusterIPs != nil || s.Spec.IPFamilies != nil || s.Spec.IPFamilyPolicy != nil {
		t.Errorf("external name: %+v", s.Spec)
	}
}

func TestNamespaceKeepsItsFinalizer(t *testing.T) {
	n := fromYAML[*corev1.Namespace](t, "metadata: {name: a}")
	resetNamespace(n, nil, "")
	if len(n.Spec.Finalizers) != 1 || n.Status.Phase != corev1.NamespaceActive || n.Labels[corev1.LabelMetadataName] != "a" {
		t.Errorf("%+v", n)
	}
	now := n.DeepCopy()
	now.Spec.Finalizers = nil
	resetNamespace(now, n, "")
	if len(now.Spec.Finalizers) != 1 {
		t.Error("an update took the finalizer away")
	}
	now.Spec.Finalizers = nil
	resetNamespace(now, n, "finalize")
	if len(now.Spec.Finalizers) != 0 {
		t.Error("finalize did not take it away")
	}
}

func TestCatalog(t *testing.T) {
	if _, err := api.NewCatalog(Kinds()...); err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]string{"services/specs": "Service", "services/endpoints": "Endpoints", "minions": "Node", "controllers": "ReplicationController"} {
		if got := kindNamed(t, kind).Path; got != path {
			t.Errorf("%s lies at %q", kind, got)
		}
	}
}
