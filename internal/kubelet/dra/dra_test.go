package dra

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	healthwire "k8s.io/kubelet/pkg/apis/dra-health/v1alpha1"
	wire "k8s.io/kubelet/pkg/apis/dra/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/kubelet/plugin"
)

func manager(t *testing.T, root string, grace time.Duration) (*Manager, chan string) {
	t.Helper()
	left := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	m, err := New(ctx, Config{Root: plugin.Root(root), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Grace: grace,
		Left: func(_ context.Context, driver string) error { left <- driver; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		m.group.Wait()
	})
	return m, left
}

// serve a driver in a folder, until the test ends at the latest.
func serve(t *testing.T, root string) (plugin.Info, *grpc.Server) {
	t.Helper()
	path := filepath.Join(root, "d.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	wire.RegisterDRAPluginServer(s, wire.UnimplementedDRAPluginServer{})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return plugin.Info{Type: "DRAPlugin", Name: "d", Endpoint: path, Said: path, Versions: []string{service}}, s
}

func TestDriverStaysAway(t *testing.T) {
	root := t.TempDir()
	info, _ := serve(t, root)
	m, left := manager(t, root, 50*time.Millisecond)
	if err := m.Register(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	if err := m.Register(t.Context(), info); err == nil {
		t.Error("the same socket was registered twice")
	}
	m.Deregister(info)
	if got := <-left; got != "d" {
		t.Errorf("%q has left", got)
	}
	if err := m.Register(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	// A kubelet that begins anew waits for the drivers that there were.
	_, left = manager(t, root, 50*time.Millisecond)
	if got := <-left; got != "d" {
		t.Errorf("%q has left", got)
	}
}

func TestClaimsOfPod(t *testing.T) {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "u"}}
	p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "a", ResourceClaimName: ptr.To("mine")}, {Name: "b", ResourceClaimTemplateName: ptr.To("t")}, {Name: "c", ResourceClaimTemplateName: ptr.To("t")}}
	if _, err := claimsOf(p); err == nil || err.Error() != `pod "n/p": ResourceClaim not created yet` {
		t.Error(err)
	}
	p.Status.ResourceClaimStatuses = []v1.PodResourceClaimStatus{{Name: "b", ResourceClaimName: ptr.To("made")}, {Name: "c"}}
	p.Status.ExtendedResourceClaimStatus = &v1.PodExtendedResourceClaimStatus{ResourceClaimName: "ext", RequestMappings: []v1.ContainerExtendedResourceRequest{{ContainerName: "x", ResourceName: "gpu.test/gpu", RequestName: "r0"}}}
	got, err := claimsOf(p)
	if err != nil || len(got) != 3 || got[0] != (named{"mine", false}) || got[1] != (named{"made", true}) || got[2] != (named{"ext", false}) {
		t.Errorf("%v %v", got, err)
	}
	c := &v1.Container{Name: "x", Resources: v1.ResourceRequirements{
		Claims:   []v1.ResourceClaim{{Name: "b", Request: "r"}, {Name: "c"}},
		Requests: v1.ResourceList{"gpu.test/gpu": resource.MustParse("1")}}}
	if asks := requested(p, c); len(asks) != 2 || asks[0] != (ask{"made", "r"}) || asks[1] != (ask{"ext", "r0"}) {
		t.Errorf("%v", asks)
	}
}

func TestAllowed(t *testing.T) {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "u"}}
	mine := []metav1.OwnerReference{{UID: "u", Controller: ptr.To(true)}}
	reserved := []resourcev1.ResourceClaimConsumerReference{{UID: "u"}}
	done := &resourcev1.AllocationResult{}
	for name, c := range map[string]struct {
		owners   []metav1.OwnerReference
		reserved []resourcev1.ResourceClaimConsumerReference
		result   *resourcev1.AllocationResult
		owned    bool
		good     bool
	}{
		"its own":           {mine, reserved, done, true, true},
		"somebody's":        {nil, reserved, done, false, true},
		"made for another":  {nil, reserved, done, true, false},
		"reserved for none": {mine, nil, done, true, false},
		"not allocated":     {mine, reserved, nil, true, false},
	} {
		claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "n", OwnerReferences: c.owners}, Status: resourcev1.ResourceClaimStatus{ReservedFor: c.reserved, Allocation: c.result}}
		if err := allowed(p, claim, c.owned); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDriverBreaksOff(t *testing.T) {
	root := t.TempDir()
	info, s := serve(t, root)
	m, left := manager(t, root, 200*time.Millisecond)
	if err := m.Register(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if got := <-left; got != "d" {
		t.Errorf("%q has left", got)
	}
	if _, err := m.driver("d"); err != nil {
		t.Errorf("it is registered all the same: %v", err)
	}
}

func TestHealth(t *testing.T) {
	m, _ := manager(t, t.TempDir(), time.Hour)
	sick := make(chan []types.UID, 10)
	m.Sick = func(pods []types.UID) { sick <- pods }
	c := newClaim()
	c.Namespace, c.Name, c.Pods, c.Drivers = "n", "mine", []types.UID{"u"}, map[string][]Device{"d": {{Pool: "p", Name: "a", CDI: []string{"d/x=a"}, Requests: []string{"r"}}, {Pool: "p", Name: "b", Requests: []string{"s"}}}}
	m.claims[c.key()] = c
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "u"}}
	p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "a", ResourceClaimName: ptr.To("mine")}}
	p.Spec.Containers = []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Claims: []v1.ResourceClaim{{Name: "a"}, {Name: "a", Request: "r"}}}}, {Name: "other"}}
	now := time.Now()
	shown := func(at time.Time) string {
		s := v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{{Name: "c"}, {Name: "other"}}}
		m.Status(p, &s, at)
		text := ""
		for _, r := range s.ContainerStatuses[0].AllocatedResourcesStatus {
			text += string(r.Name)
			for _, h := range r.Resources {
				text += " " + string(h.ResourceID) + "=" + string(h.Health) + ptr.Deref(h.Message, "")
			}
			text += "; "
		}
		if len(s.ContainerStatuses[1].AllocatedResourcesStatus) > 0 {
			text += "others have some"
		}
		return text
	}
	if got := shown(now); got != "claim:a d/x=a=Unknown d/p/b=Unknown; claim:a/r d/x=a=Unknown; " {
		t.Error(got)
	}
	device := func(name string, h healthwire.HealthStatus) *healthwire.DeviceHealth {
		return &healthwire.DeviceHealth{Device: &healthwire.DeviceIdentifier{PoolName: "p", DeviceName: name}, Health: h, Message: "!"}
	}
	m.heard("d", []*healthwire.DeviceHealth{device("a", healthwire.HealthStatus_UNHEALTHY), device("b", healthwire.HealthStatus_HEALTHY)})
	if pods := <-sick; len(pods) != 1 || pods[0] != "u" {
		t.Error(pods)
	}
	if got := shown(now); got != "claim:a d/x=a=Unhealthy! d/p/b=Healthy!; claim:a/r d/x=a=Unhealthy!; " {
		t.Error(got)
	}
	if got := shown(now.Add(time.Minute)); got != "claim:a d/x=a=Unknown d/p/b=Unknown; claim:a/r d/x=a=Unknown; " {
		t.Error(got)
	}
	m.heard("d", []*healthwire.DeviceHealth{device("a", healthwire.HealthStatus_UNHEALTHY), device("b", healthwire.HealthStatus_HEALTHY)})
	if len(sick) > 0 {
		t.Error("nothing has changed")
	}
	m.heard("d", nil)
	<-sick
}
