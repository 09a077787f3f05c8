package csi

import (
	"context"
	"slices"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// Usage of a volume that is in place.
type Usage struct {
	Pod    types.UID
	Volume string // as the pod calls it
	Claim  string // of the pod's namespace, "" = none
	At     time.Time

	Capacity, Used, Available      uint64 // bytes
	Inodes, InodesUsed, InodesFree uint64
}

const (
	usageLasts = time.Minute // what was asked for is told again for that long
	usageTime  = 10 * time.Second
)

// Usage of the volumes of a pod, or of all pods for "", as the drivers tell it; of
// those that do not, as the kernel does.
func (m *Manager) Usage(ctx context.Context, pod types.UID) []Usage {
	type of struct {
		publication
		mounted
	}
	m.mu.Lock()
	var list []of
	for key, p := range m.published {
		if p.done && (pod == "" || pod == key.pod) {
			list = append(list, of{key, *p})
		}
	}
	m.mu.Unlock()
	slices.SortFunc(list, func(a, b of) int { return strings.Compare(string(a.pod)+a.name, string(b.pod)+b.name) })
	var all []Usage
	for _, p := range list {
		u := p.usage
		if time.Since(u.At) > usageLasts {
			var ok bool
			if u, ok = m.ask(ctx, p.publication, p.mounted); !ok {
				continue
			}
			u.Pod, u.Volume, u.Claim, u.At = p.pod, p.as, p.claim, time.Now()
			m.mu.Lock()
			if now := m.published[p.publication]; now != nil {
				now.usage = u
			}
			m.mu.Unlock()
		}
		all = append(all, u)
	}
	return all
}

func (m *Manager) ask(ctx context.Context, key publication, p mounted) (u Usage, ok bool) {
	path := place(m.Root, key, p.device)
	ctx, cancel := context.WithTimeout(ctx, usageTime)
	defer cancel()
	d, err := m.driver(p.id.Driver)
	if err == nil {
		ok, err = d.can(ctx, spec.NodeServiceCapability_RPC_GET_VOLUME_STATS)
	}
	if err != nil || !ok {
		return u, !p.device && u.stat(path)
	}
	r, err := d.NodeGetVolumeStats(ctx, &spec.NodeGetVolumeStatsRequest{VolumeId: p.id.Handle, VolumePath: d.path(path)})
	if err != nil {
		return u, false
	}
	for _, x := range r.Usage {
		switch total, used, free := uint64(max(x.Total, 0)), uint64(max(x.Used, 0)), uint64(max(x.Available, 0)); x.Unit {
		case spec.VolumeUsage_BYTES:
			u.Capacity, u.Used, u.Available = total, used, free
		case spec.VolumeUsage_INODES:
			u.Inodes, u.InodesUsed, u.InodesFree = total, used, free
		}
	}
	return u, true
}

// stat asks the kernel.
func (u *Usage) stat(path string) bool {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return false
	}
	size := uint64(st.Bsize)
	u.Capacity, u.Available, u.Used = st.Blocks*size, st.Bavail*size, (st.Blocks-st.Bfree)*size
	u.Inodes, u.InodesFree, u.InodesUsed = st.Files, st.Ffree, st.Files-st.Ffree
	return true
}
