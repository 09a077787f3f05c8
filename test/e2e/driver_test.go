package e2e

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const driverName = "folders.example.com"

// driver is the node's part of a CSI driver whose disks are folders. It publishes a
// disk only once it is attached and staged.
type driver struct {
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	node, socket, disks string

	mu    sync.Mutex
	calls []string
}

// newDriver announces itself to the kubelet whose folder it is given.
func newDriver(t *testing.T, kubelet, node string) *driver {
	t.Helper()
	d := &driver{node: node, socket: filepath.Join(kubelet, "plugins", driverName, "csi.sock"), disks: t.TempDir()}
	s := grpc.NewServer()
	csi.RegisterNodeServer(s, d)
	registration.RegisterRegistrationServer(s, d)
	t.Cleanup(s.Stop)
	for _, path := range []string{d.socket, filepath.Join(kubelet, "plugins_registry", driverName+"-reg.sock")} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go s.Serve(l)
	}
	return d
}

func (d *driver) called(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, what)
}

// has been called for this.
func (d *driver) has(what string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.calls, what)
}

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: driverName, Endpoint: d.socket, SupportedVersions: []string{"1.0.0"}}, nil
}

func (d *driver) NotifyRegistrationStatus(context.Context, *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	r := &csi.NodeGetCapabilitiesResponse{}
	for _, what := range []csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, csi.NodeServiceCapability_RPC_EXPAND_VOLUME} {
		r.Capabilities = append(r.Capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: what}}})
	}
	return r, nil
}

func (d *driver) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if r.PublishContext["device"] == "" {
		return nil, errors.New("not attached")
	}
	d.called("stage")
	disk := filepath.Join(d.disks, r.VolumeId)
	if err := os.MkdirAll(disk, 0o755); err != nil {
		return nil, err
	}
	return &csi.NodeStageVolumeResponse{}, os.Chmod(disk, 0o777) // for whoever the pod runs as
}

func (d *driver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	d.called("publish")
	if err := os.MkdirAll(r.TargetPath, 0o755); err != nil {
		return nil, err
	}
	return &csi.NodePublishVolumeResponse{}, unix.Mount(filepath.Join(d.disks, r.VolumeId), r.TargetPath, "", unix.MS_BIND, "")
}

func (d *driver) NodeExpandVolume(_ context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	d.called("expand")
	return &csi.NodeExpandVolumeResponse{CapacityBytes: r.GetCapacityRange().GetRequiredBytes()}, nil
}

func (d *driver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	d.called("unpublish")
	_ = unix.Unmount(r.TargetPath, 0) // it may have been
	if err := os.Remove(r.TargetPath); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (d *driver) NodeUnstageVolume(context.Context, *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	d.called("unstage")
	return &csi.NodeUnstageVolumeResponse{}, nil
}
