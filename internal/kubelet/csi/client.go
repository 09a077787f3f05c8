package csi

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/kubelet/plugin"
)

// callTime is how long a driver may take for one call.
const callTime = 2 * time.Minute

// driver that has registered.
type driver struct {
	spec.NodeClient
	plugin.Info
	conn *grpc.ClientConn
	root plugin.Root

	mu   sync.Mutex
	caps []spec.NodeServiceCapability_RPC_Type // nil = not asked yet
}

func (m *Manager) dial(i plugin.Info) (*driver, error) {
	conn, err := plugin.Dial(i.Endpoint)
	if err != nil {
		return nil, err
	}
	return &driver{NodeClient: spec.NewNodeClient(conn), Info: i, conn: conn, root: m.Root}, nil
}

// path as the driver knows it, "" = "".
func (d *driver) path(p string) string { return d.root.Known(p, d.Said) }

// nodeInfo is what a driver says about the node.
type nodeInfo struct {
	driver, id string
	limit      int64 // volumes that can be attached, 0 = any number
	topology   map[string]string
}

func (d *driver) info(ctx context.Context) (nodeInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := d.NodeGetInfo(ctx, &spec.NodeGetInfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return nodeInfo{}, err
	}
	if r.NodeId == "" {
		return nodeInfo{}, fmt.Errorf("the CSI driver %s says that the node has no id", d.Name)
	}
	return nodeInfo{d.Name, r.NodeId, r.MaxVolumesPerNode, r.GetAccessibleTopology().GetSegments()}, nil
}

// can says whether the driver has a capability. It is asked for them once.
func (d *driver) can(ctx context.Context, c spec.NodeServiceCapability_RPC_Type) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.caps == nil {
		r, err := d.NodeGetCapabilities(ctx, &spec.NodeGetCapabilitiesRequest{})
		if err != nil {
			return false, err
		}
		d.caps = []spec.NodeServiceCapability_RPC_Type{}
		for _, c := range r.Capabilities {
			d.caps = append(d.caps, c.GetRpc().GetType())
		}
	}
	return slices.Contains(d.caps, c), nil
}

// capability of a volume as a request describes it. fs has the fields of a volume
// that is mounted, nil = a block volume.
func (d *driver) capability(ctx context.Context, mode v1.PersistentVolumeAccessMode, fs *spec.VolumeCapability_MountVolume) (*spec.VolumeCapability, error) {
	multi, err := d.can(ctx, spec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER)
	if err != nil {
		return nil, err
	}
	c := &spec.VolumeCapability{AccessMode: &spec.VolumeCapability_AccessMode{Mode: accessMode(mode, multi)}}
	if fs == nil {
		c.AccessType = &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}
	} else {
		c.AccessType = &spec.VolumeCapability_Mount{Mount: fs}
	}
	return c, nil
}

// accessMode of a volume in CSI's terms. multi: the driver tells apart whether one
// pod or several of a node may write.
func accessMode(mode v1.PersistentVolumeAccessMode, multi bool) spec.VolumeCapability_AccessMode_Mode {
	switch {
	case mode == v1.ReadOnlyMany:
		return spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	case mode == v1.ReadWriteMany:
		return spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	case mode == v1.ReadWriteOnce && multi:
		return spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	case mode == v1.ReadWriteOncePod && multi:
		return spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	case mode == v1.ReadWriteOnce, mode == v1.ReadWriteOncePod:
		return spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	}
	return spec.VolumeCapability_AccessMode_UNKNOWN
}

// final says whether a call that failed with an error has had no effect that lasts
// and goes on no more, as the CSI specification says of its code.
func final(err error) bool {
	s, ok := status.FromError(err)
	if !ok {
		return false
	}
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		return false
	}
	return true
}
