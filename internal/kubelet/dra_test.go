package kubelet

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	wire "k8s.io/kubelet/pkg/apis/dra/v1"
	beta "k8s.io/kubelet/pkg/apis/dra/v1beta1"
	"k8s.io/utils/ptr"
)

// gpu is a DRA driver that gives each claim one device for each request "r" and "s".
type gpu struct {
	wire.UnimplementedDRAPluginServer
	mu    sync.Mutex
	calls []string
	fail  error
}

func (g *gpu) called(what string, claims []*wire.Claim) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range claims {
		what += " " + c.Namespace + "/" + c.Name + "/" + c.Uid
	}
	g.calls = append(g.calls, what)
	return g.fail
}

func (g *gpu) made() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.calls, ", ")
}

func (g *gpu) NodePrepareResources(_ context.Context, r *wire.NodePrepareResourcesRequest) (*wire.NodePrepareResourcesResponse, error) {
	out := &wire.NodePrepareResourcesResponse{Claims: map[string]*wire.NodePrepareResourceResponse{}}
	for _, c := range r.Claims {
		out.Claims[c.Uid] = &wire.NodePrepareResourceResponse{Devices: []*wire.Device{
			{RequestNames: []string{"r"}, PoolName: "p", DeviceName: "a", CdiDeviceIds: []string{"gpu.test/gpu=a"}},
			{RequestNames: []string{"s"}, PoolName: "p", DeviceName: "b", CdiDeviceIds: []string{"gpu.test/gpu=b"}},
		}}
	}
	return out, g.called("prepare", r.Claims)
}

func (g *gpu) NodeUnprepareResources(_ context.Context, r *wire.NodeUnprepareResourcesRequest) (*wire.NodeUnprepareResourcesResponse, error) {
	out := &wire.NodeUnprepareResourcesResponse{Claims: map[string]*wire.NodeUnprepareResourceResponse{}}
	for _, c := range r.Claims {
		out.Claims[c.Uid] = &wire.NodeUnprepareResourceResponse{}
	}
	return out, g.called("unprepare", r.Claims)
}

// older speaks v1beta1.
type older struct {
	beta.UnimplementedDRAPluginServer
}

func (older) NodePrepareResources(_ context.Context, r *beta.NodePrepareResourcesRequest) (*beta.NodePrepareResourcesResponse, error) {
	out := &beta.NodePrepareResourcesResponse{Claims: map[string]*beta.NodePrepareResourceResponse{}}
	for _, c := range r.Claims {
		out.Claims[c.Uid] = &beta.NodePrepareResourceResponse{Devices: []*beta.Device{{PoolName: "p", DeviceName: "o", CdiDeviceIds: []string{"old.test/gpu=o"}}}}
	}
	return out, nil
}

func (older) NodeUnprepareResources(context.Context, *beta.NodeUnprepareResourcesRequest) (*beta.NodeUnprepareResourcesResponse, error) {
	return nil, errors.New("never")
}

// allocated makes a claim of a driver that is reserved for pods.
func (b *bench) allocated(name, driver string, pods ...types.UID) {
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: types.UID(name + "-uid")},
		Status: resourcev1.ResourceClaimStatus{Allocation: &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
			Results: []resourcev1.DeviceRequestAllocationResult{{Request: "r", Driver: driver, Pool: "p", Device: "a"}, {Request: "s", Driver: driver, Pool: "p", Device: "b"}}}}}}
	for _, uid := range pods {
		c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", UID: uid})
	}
	create(b, c)
}

func withClaim(name string, requests ...string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "c", ResourceClaimName: ptr.To(name)}}
		for _, r := range requests {
			p.Spec.Containers[0].Resources.Claims = append(p.Spec.Containers[0].Resources.Claims, v1.ResourceClaim{Name: "c", Request: r})
		}
	}
}

// devices that the container of a pod was made with.
func (b *bench) devices(pod string) (list []string) {
	b.engine.mu.Lock()
	defer b.engine.mu.Unlock()
	for _, d := range b.engine.made[pod].GetCDIDevices() {
		list = append(list, d.Name)
	}
	return list
}

func TestClaimsArePrepared(t *testing.T) {
	b := newBench(t)
	b.allocated("c", "gpu.test", "p-uid", "q-uid")
	b.create("p", v1.RestartPolicyAlways, withClaim("c", "s"))
	b.await("an event says that the driver is not there", func() bool {
		return b.event("FailedPrepareDynamicResources", "DRA driver gpu.test is not registered")
	})
	g := &gpu{}
	s := grpc.NewServer()
	wire.RegisterDRAPluginServer(s, g)
	b.announce(&announced{kind: "DRAPlugin", name: "gpu.test", versions: []string{"v1.DRAPlugin"}}, s)
	b.wait("p", "ready, now that the driver has come", ready)
	if got := b.devices("p"); !slices.Equal(got, []string{"gpu.test/gpu=b"}) {
		t.Errorf("devices: %v", got)
	}
	b.stop()
	b.start()
	b.create("q", v1.RestartPolicyAlways, withClaim("c", ""))
	b.wait("q", "ready", ready)
	if got := b.devices("q"); !slices.Equal(got, []string{"gpu.test/gpu=a", "gpu.test/gpu=b"}) {
		t.Errorf("devices: %v", got)
	}
	b.create("stranger", v1.RestartPolicyAlways, withClaim("c", ""))
	b.await("an event says that the claim is not the pod's", func() bool {
		return b.event("FailedPrepareDynamicResources", "pod stranger (stranger-uid) is not allowed to use ResourceClaim c (c-uid)")
	})
	b.end("stranger")
	b.end("p")
	b.swept("p")
	if got := g.made(); got != "prepare n/c/c-uid" {
		t.Errorf("the driver was called: %s", got)
	}
	g.mu.Lock()
	g.fail = errors.New("busy")
	g.mu.Unlock()
	b.create("r", v1.RestartPolicyAlways, nil)
	b.wait("r", "ready", ready)
	b.remove("q")
	b.await("the driver is asked again", func() bool { return strings.Count(g.made(), "unprepare n/c/c-uid") > 1 })
	g.mu.Lock()
	g.fail = nil
	g.mu.Unlock()
	b.wait("q", "gone", func(p *v1.Pod) bool { return p == nil })
}

func TestOlderDriversPrepare(t *testing.T) {
	b := newBench(t)
	b.allocated("c", "old.test", "p-uid")
	s := grpc.NewServer()
	beta.RegisterDRAPluginServer(s, older{})
	b.announce(&announced{kind: "DRAPlugin", name: "old.test", versions: []string{"v1beta1.DRAPlugin"}}, s)
	b.create("p", v1.RestartPolicyAlways, withClaim("c", ""))
	b.wait("p", "ready", ready)
	if got := b.devices("p"); !slices.Equal(got, []string{"old.test/gpu=o"}) {
		t.Errorf("devices: %v", got)
	}
}
