package kubelet

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// announced is a plugin's part that the kubelet finds first.
type announced struct {
	registration.UnimplementedRegistrationServer
	kind, name, endpoint string
	versions             []string
}

func (a *announced) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: a.kind, Name: a.name, Endpoint: a.endpoint, SupportedVersions: a.versions}, nil
}

func (a *announced) NotifyRegistrationStatus(context.Context, *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	return &registration.RegistrationStatusResponse{}, nil
}

// announce a plugin whose service is on a server, which is stopped with the test.
func (b *bench) announce(a *announced, s *grpc.Server) (socket string) {
	b.t.Helper()
	dir := filepath.Join(b.root, "kubelet", "plugins_registry")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	socket = filepath.Join(dir, a.name+".sock")
	if a.endpoint == "" {
		a.endpoint = socket
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		b.t.Fatal(err)
	}
	registration.RegisterRegistrationServer(s, a)
	go s.Serve(l)
	b.t.Cleanup(s.Stop)
	return socket
}

// disk is a CSI driver whose volumes are folders in memory.
type disk struct {
	spec.UnimplementedNodeServer
	can []spec.NodeServiceCapability_RPC_Type

	mu    sync.Mutex
	calls []string
	fail  map[string]error
	last  map[string]any // request by method
}

func (d *disk) called(method string, r any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, method)
	d.last[method] = r
	return d.fail[method]
}

func (d *disk) made() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.calls, " ")
}

func (d *disk) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (*spec.NodeGetInfoResponse, error) {
	return &spec.NodeGetInfoResponse{NodeId: "node-id", MaxVolumesPerNode: 7, AccessibleTopology: &spec.Topology{Segments: map[string]string{"disk.test/zone": "a"}}}, nil
}

func (d *disk) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	r := &spec.NodeGetCapabilitiesResponse{}
	for _, c := range d.can {
		r.Capabilities = append(r.Capabilities, &spec.NodeServiceCapability{Type: &spec.NodeServiceCapability_Rpc{Rpc: &spec.NodeServiceCapability_RPC{Type: c}}})
	}
	return r, nil
}

func (d *disk) NodeStageVolume(_ context.Context, r *spec.NodeStageVolumeRequest) (*spec.NodeStageVolumeResponse, error) {
	return &spec.NodeStageVolumeResponse{}, d.called("stage", r)
}

func (d *disk) NodeUnstageVolume(_ context.Context, r *spec.NodeUnstageVolumeRequest) (*spec.NodeUnstageVolumeResponse, error) {
	return &spec.NodeUnstageVolumeResponse{}, d.called("unstage", r)
}

func (d *disk) NodePublishVolume(_ context.Context, r *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	if err := d.called("publish", r); err != nil {
		return nil, err
	}
	if r.VolumeCapability.GetBlock() != nil {
		return &spec.NodePublishVolumeResponse{}, unix.Mknod(r.TargetPath, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0)))
	}
	if err := os.MkdirAll(r.TargetPath, 0o755); err != nil {
		return nil, err
	}
	return &spec.NodePublishVolumeResponse{}, unix.Mount("tmpfs", r.TargetPath, "tmpfs", 0, "size=64k")
}

func (d *disk) NodeUnpublishVolume(_ context.Context, r *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	if err := d.called("unpublish", r); err != nil {
		return nil, err
	}
	unix.Unmount(r.TargetPath, 0)
	return &spec.NodeUnpublishVolumeResponse{}, os.Remove(r.TargetPath)
}

func (d *disk) NodeExpandVolume(_ context.Context, r *spec.NodeExpandVolumeRequest) (*spec.NodeExpandVolumeResponse, error) {
	return &spec.NodeExpandVolumeResponse{}, d.called("expand", r)
}

const diskName = "disk.test"

func (b *bench) disk(can ...spec.NodeServiceCapability_RPC_Type) *disk {
	d := &disk{can: can, fail: map[string]error{}, last: map[string]any{}}
	s := grpc.NewServer()
	spec.RegisterNodeServer(s, d)
	b.announce(&announced{kind: "CSIPlugin", name: diskName, versions: []string{"1.0.0"}}, s)
	return d
}

func create[T api.Object](b *bench, obj T) {
	b.t.Helper()
	if _, err := client.For[T](b.api).Create(b.t.Context(), obj); err != nil {
		b.t.Fatal(err)
	}
}

// await a condition of anything.
func (b *bench) await(what string, good func() bool) {
	b.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); !good(); {
		select {
		case <-deadline:
			b.t.Fatalf("not so after 30 seconds: %s", what)
		case <-tick.C:
		}
	}
}

// remove a pod: it is to stop.
func (b *bench) remove(name string) {
	b.t.Helper()
	p, err := client.For[*v1.Pod](b.api).Get(b.t.Context(), "n", name)
	if err != nil {
		b.t.Fatal(err)
	}
	gone := p.DeepCopy()
	gone.DeletionTimestamp, gone.DeletionGracePeriodSeconds = ptr.To(metav1.Now()), ptr.To[int64](1)
	if _, err := client.For[*v1.Pod](b.api).Update(b.t.Context(), gone); err != nil {
		b.t.Fatal(err)
	}
}

// end a pod, and wait until it is gone.
func (b *bench) end(name string) {
	b.t.Helper()
	b.remove(name)
	b.wait(name, "gone", func(p *v1.Pod) bool { return p == nil })
}

// swept waits until nothing of a pod is left on the node.
func (b *bench) swept(name string) {
	b.t.Helper()
	b.await("the folder of "+name+" is gone", func() bool {
		_, err := os.Stat(filepath.Join(b.root, "kubelet/pods", name+"-uid"))
		return os.IsNotExist(err)
	})
}

func withVolume(source v1.VolumeSource) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{Name: "data", VolumeSource: source}}
		p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "data", MountPath: "/data"}}
	}
}

func TestInlineVolumeOfDriver(t *testing.T) {
	b := newBench(t)
	create(b, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: diskName}, Spec: storagev1.CSIDriverSpec{
		PodInfoOnMount: ptr.To(true), VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral}}})
	b.create("p", v1.RestartPolicyAlways, withVolume(v1.VolumeSource{CSI: &v1.CSIVolumeSource{Driver: diskName, VolumeAttributes: map[string]string{"size": "1"}}}))
	b.await("an event says that the driver is not there", func() bool {
		return b.event("FailedMount", "driver name disk.test not found in the list of registered CSI drivers")
	})
	d := b.disk(spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME)
	b.wait("p", "ready, now that the driver has come", ready)
	if got := d.made(); got != "publish" {
		t.Errorf("the driver was called: %s", got)
	}
	r := d.last["publish"].(*spec.NodePublishVolumeRequest)
	if r.TargetPath != filepath.Join(b.root, "kubelet/pods/p-uid/volumes/kubernetes.io~csi/data/mount") || !strings.HasPrefix(r.VolumeId, "csi-") || r.StagingTargetPath != "" ||
		r.VolumeContext["size"] != "1" || r.VolumeContext["csi.storage.k8s.io/pod.name"] != "p" || r.VolumeContext["csi.storage.k8s.io/ephemeral"] != "true" {
		t.Errorf("publish: %v", r)
	}
	n, err := client.For[*storagev1.CSINode](b.api).Get(t.Context(), "", "node")
	if err != nil || len(n.Spec.Drivers) != 1 || n.Spec.Drivers[0].NodeID != "node-id" || *n.Spec.Drivers[0].Allocatable.Count != 7 || !slices.Equal(n.Spec.Drivers[0].TopologyKeys, []string{"disk.test/zone"}) {
		t.Errorf("CSINode: %v %v", n, err)
	}
	node, err := client.For[*v1.Node](b.api).Get(t.Context(), "", "node")
	if err != nil || node.Labels["disk.test/zone"] != "a" || node.Annotations["csi.volume.kubernetes.io/nodeid"] != `{"disk.test":"node-id"}` {
		t.Errorf("Node: %v %v", node, err)
	}
	b.stop()
	b.start()
	b.create("q", v1.RestartPolicyAlways, nil)
	b.wait("q", "ready", ready)
	b.end("p")
	b.swept("p")
	if got := d.made(); got != "publish unpublish" {
		t.Errorf("the driver was called: %s", got)
	}
	os.Remove(filepath.Join(b.root, "kubelet/plugins_registry/disk.test.sock"))
	b.await("the CSINode no longer has the driver", func() bool {
		n, err := client.For[*storagev1.CSINode](b.api).Get(t.Context(), "", "node")
		return err == nil && len(n.Spec.Drivers) == 0
	})
}

// event says whether there is one with a reason and a text in its message.
func (b *bench) event(reason, text string) bool {
	b.api.mu.Lock()
	defer b.api.mu.Unlock()
	for _, o := range b.api.objects["events"] {
		if e := o.(*v1.Event); e.Reason == reason && strings.Contains(e.Message, text) {
			return true
		}
	}
	return false
}

// claim makes a claim and its volume.
func (b *bench) claim(name string, mode v1.PersistentVolumeMode) {
	size := v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}
	create(b, &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-" + name, UID: types.UID("pv-" + name)}, Spec: v1.PersistentVolumeSpec{
		Capacity: size, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, ClaimRef: &v1.ObjectReference{Namespace: "n", Name: name, UID: types.UID(name)},
		VolumeMode: &mode, MountOptions: []string{"noatime"}, PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
			Driver: diskName, VolumeHandle: "handle-" + name, FSType: "ext4", VolumeAttributes: map[string]string{"a": "b"},
			NodeStageSecretRef: &v1.SecretReference{Namespace: "n", Name: "s"}}}}})
	create(b, &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: types.UID(name)},
		Spec:   v1.PersistentVolumeClaimSpec{VolumeName: "pv-" + name, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}},
		Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound, Capacity: size}})
}

func onClaim(name string) v1.VolumeSource {
	return v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: name}}
}

func TestClaimOfDriver(t *testing.T) {
	b := newBench(t)
	create(b, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s", UID: "s"}, Data: map[string][]byte{"k": []byte("v")}})
	b.claim("c", v1.PersistentVolumeFilesystem)
	d := b.disk(spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, spec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER)
	b.create("p", v1.RestartPolicyAlways, func(p *v1.Pod) {
		withVolume(onClaim("c"))(p)
		p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: ptr.To[int64](77)}
	})
	nodes := client.For[*v1.Node](b.api)
	name := v1.UniqueVolumeName("kubernetes.io/csi/disk.test^handle-c")
	inUse := func() bool {
		n, err := nodes.Get(t.Context(), "", "node")
		return err == nil && slices.Contains(n.Status.VolumesInUse, name)
	}
	b.await("the node says that it uses the volume", inUse)
	if got := d.made(); got != "" {
		t.Errorf("the driver was called before the volume was attached: %s", got)
	}
	create(b, &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("csi-%x", sha256.Sum256([]byte("handle-c"+diskName+"node")))},
		Status: storagev1.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: map[string]string{"dev": "x"}}})
	n, _ := nodes.Get(t.Context(), "", "node")
	n = n.DeepCopy()
	n.Status.VolumesAttached = []v1.AttachedVolume{{Name: name}}
	if _, err := nodes.Update(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	b.wait("p", "ready", ready)
	if got := d.made(); got != "stage publish" {
		t.Errorf("the driver was called: %s", got)
	}
	st, pub := d.last["stage"].(*spec.NodeStageVolumeRequest), d.last["publish"].(*spec.NodePublishVolumeRequest)
	if st.PublishContext["dev"] != "x" || st.Secrets["k"] != "v" || st.VolumeContext["a"] != "b" || st.VolumeId != "handle-c" ||
		!strings.HasSuffix(st.StagingTargetPath, "/globalmount") || st.StagingTargetPath != pub.StagingTargetPath ||
		st.VolumeCapability.AccessMode.Mode != spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER ||
		st.VolumeCapability.GetMount().FsType != "ext4" || !slices.Equal(st.VolumeCapability.GetMount().MountFlags, []string{"noatime"}) {
		t.Errorf("stage: %v\npublish: %v", st, pub)
	}
	if info, err := os.Stat(pub.TargetPath); err != nil || info.Mode()&os.ModeSetgid == 0 {
		t.Errorf("the folder is not the fsGroup's: %v %v", info, err)
	}
	b.create("q", v1.RestartPolicyAlways, withVolume(onClaim("c")))
	b.wait("q", "ready", ready)
	b.stop()
	b.start()
	b.create("r", v1.RestartPolicyAlways, nil)
	b.wait("r", "ready", ready)
	b.end("p")
	b.await("the volume is unpublished", func() bool { return strings.Count(d.made(), "unpublish") == 1 })
	if !inUse() {
		t.Error("the volume is not in use although a pod has it")
	}
	d.mu.Lock()
	d.fail["unstage"] = status.Error(codes.Internal, "busy")
	d.mu.Unlock()
	b.end("q")
	b.await("it is tried to unstage the volume", func() bool { return strings.Contains(d.made(), "unstage") })
	if !inUse() {
		t.Error("the volume is not in use although it is staged")
	}
	d.mu.Lock()
	d.fail = nil
	d.mu.Unlock()
	b.await("the volume is no longer in use", func() bool { return !inUse() })
	if got := d.made(); !strings.HasPrefix(got, "stage publish publish unpublish unpublish unstage unstage") {
		t.Errorf("the driver was called: %s", got)
	}
	if left, _ := filepath.Glob(filepath.Join(b.root, "kubelet/plugins/kubernetes.io/csi/disk.test/*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestBlockVolumeOfDriver(t *testing.T) {
	b := newBench(t)
	create(b, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s", UID: "s"}})
	create(b, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: diskName}, Spec: storagev1.CSIDriverSpec{AttachRequired: ptr.To(false)}})
	b.claim("c", v1.PersistentVolumeBlock)
	d := b.disk(spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME)
	b.create("p", v1.RestartPolicyAlways, func(p *v1.Pod) {
		withVolume(onClaim("c"))(p)
		p.Spec.Containers[0].VolumeMounts = nil
		p.Spec.Containers[0].VolumeDevices = []v1.VolumeDevice{{Name: "data", DevicePath: "/dev/data"}}
	})
	b.wait("p", "ready", ready)
	pub := d.last["publish"].(*spec.NodePublishVolumeRequest)
	if pub.TargetPath != filepath.Join(b.root, "kubelet/plugins/kubernetes.io/csi/volumeDevices/publish/pv-c/p-uid") || pub.VolumeCapability.GetBlock() == nil {
		t.Errorf("publish: %v", pub)
	}
	b.stop()
	b.start()
	b.create("q", v1.RestartPolicyAlways, nil)
	b.wait("q", "ready", ready)
	b.end("p")
	b.await("the volume is unstaged", func() bool { return strings.HasSuffix(d.made(), "unpublish unstage") })
	b.await("nothing is left", func() bool {
		left, _ := filepath.Glob(filepath.Join(b.root, "kubelet/plugins/kubernetes.io/csi/volumeDevices/*/*"))
		return len(left) == 0
	})
}

func TestClaimOfDriverGrows(t *testing.T) {
	b := newBench(t)
	create(b, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s", UID: "s"}})
	create(b, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: diskName}, Spec: storagev1.CSIDriverSpec{AttachRequired: ptr.To(false)}})
	b.claim("c", v1.PersistentVolumeFilesystem)
	d := b.disk(spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, spec.NodeServiceCapability_RPC_EXPAND_VOLUME)
	b.create("p", v1.RestartPolicyAlways, withVolume(onClaim("c")))
	b.wait("p", "ready", ready)
	two := v1.ResourceList{v1.ResourceStorage: resource.MustParse("2Gi")}
	pvs, claims := client.For[*v1.PersistentVolume](b.api), client.For[*v1.PersistentVolumeClaim](b.api)
	pv, _ := pvs.Get(t.Context(), "", "pv-c")
	pv = pv.DeepCopy()
	pv.Spec.Capacity = two
	pvs.Update(t.Context(), pv)
	c, _ := claims.Get(t.Context(), "n", "c")
	c = c.DeepCopy()
	c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = two, map[v1.ResourceName]v1.ClaimResourceStatus{v1.ResourceStorage: v1.PersistentVolumeClaimNodeResizePending}
	c.Status.Conditions = []v1.PersistentVolumeClaimCondition{{Type: v1.PersistentVolumeClaimFileSystemResizePending, Status: v1.ConditionTrue}}
	claims.Update(t.Context(), c)
	p, _ := client.For[*v1.Pod](b.api).Get(t.Context(), "n", "p")
	p = p.DeepCopy()
	p.Labels = map[string]string{"look": "again"}
	client.For[*v1.Pod](b.api).Update(t.Context(), p)
	b.await("the claim has grown", func() bool {
		c, _ := claims.Get(t.Context(), "n", "c")
		return c.Status.Capacity.Storage().Equal(two[v1.ResourceStorage]) && len(c.Status.AllocatedResourceStatuses) == 0 && len(c.Status.Conditions) == 0
	})
	if r := d.last["expand"].(*spec.NodeExpandVolumeRequest); r.CapacityRange.RequiredBytes != 2<<30 || !strings.HasSuffix(r.VolumePath, "/pv-c/mount") {
		t.Errorf("expand: %v", r)
	}
	if got := d.made(); got != "stage publish expand" {
		t.Errorf("the driver was called: %s", got)
	}
}
