package stats

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/kubelet/image"
)

// disks adds what is on disk: of the node, of logs, volumes and writable layers.
func (s *Source) disks(ctx context.Context, sum *Summary) {
	now := metav1.Now()
	var root, images *FsStats
	if fs, err := image.Stat(s.Root); err == nil {
		root = files(now, fs)
		sum.Node.Fs = root
	}
	if fs, err := s.Images.FsInfo(ctx); err == nil {
		images = files(now, fs)
		of := *images
		of.UsedBytes, of.InodesUsed = &fs.Used, nil
		sum.Node.Runtime = &RuntimeStats{ImageFs: &of, ContainerFs: &of}
	}
	for i := range sum.Pods {
		p := &sum.Pods[i]
		local := amount{}
		for j := range p.Containers {
			c := &p.Containers[j]
			if c.Rootfs != nil {
				local.bytes += int64(ptr.Deref(c.Rootfs.UsedBytes, 0))
				local.inodes += int64(ptr.Deref(c.Rootfs.InodesUsed, 0))
				c.Rootfs.on(images)
			}
			logs := tree(filepath.Join(s.Logs(p.pod), c.Name))
			c.Logs = logs.stats(now)
			c.Logs.on(root)
			local = local.plus(logs)
		}
		for j := range p.pod.Spec.Volumes {
			v := &p.pod.Spec.Volumes[j]
			dir, onDisk := s.volume(p.pod, v)
			if dir == "" {
				continue
			}
			if !onDisk {
				if fs, err := image.Stat(dir); err == nil {
					p.Volumes = append(p.Volumes, VolumeStats{FsStats: *files(now, fs), Name: v.Name})
				}
				continue
			}
			used := tree(dir)
			fs := used.stats(now)
			fs.on(root)
			p.Volumes = append(p.Volumes, VolumeStats{FsStats: *fs, Name: v.Name})
			local = local.plus(used)
		}
		s.driven(ctx, p)
		p.Ephemeral = local.stats(now)
		p.Ephemeral.on(root)
	}
}

// volume that the node keeps for a pod: its folder ("" = it is elsewhere), and
// whether it lies on the node's disk or is a file system of its own.
func (s *Source) volume(p *v1.Pod, v *v1.Volume) (dir string, onDisk bool) {
	kind := ""
	switch {
	case v.EmptyDir != nil:
		kind, onDisk = "empty-dir", v.EmptyDir.Medium == v1.StorageMediumDefault
	case v.ConfigMap != nil:
		kind, onDisk = "configmap", true
	case v.Secret != nil:
		kind = "secret"
	case v.DownwardAPI != nil:
		kind = "downward-api"
	case v.Projected != nil:
		kind = "projected"
	default:
		return "", false
	}
	return filepath.Join(s.PodDir(p.UID), "volumes", "kubernetes.io~"+kind, v.Name), onDisk
}

// driven adds the pod's volumes that CSI drivers serve.
func (s *Source) driven(ctx context.Context, p *PodStats) {
	if s.Driven == nil || !slices.ContainsFunc(p.pod.Spec.Volumes, func(v v1.Volume) bool {
		return v.CSI != nil || v.PersistentVolumeClaim != nil || v.Ephemeral != nil
	}) {
		return
	}
	for _, u := range s.Driven(ctx, p.pod.UID) {
		v := VolumeStats{Name: u.Volume, FsStats: FsStats{
			Time: metav1.Time{Time: u.At}, CapacityBytes: &u.Capacity, AvailableBytes: &u.Available, UsedBytes: &u.Used,
			Inodes: &u.Inodes, InodesFree: &u.InodesFree, InodesUsed: &u.InodesUsed}}
		if u.Claim != "" {
			v.PVCRef = &PVCReference{u.Claim, p.pod.Namespace}
		}
		p.Volumes = append(p.Volumes, v)
	}
}

// amount of disk that is used.
type amount struct{ bytes, inodes int64 }

func (a amount) plus(b amount) amount { return amount{a.bytes + b.bytes, a.inodes + b.inodes} }

func (a amount) stats(now metav1.Time) *FsStats {
	return &FsStats{Time: now, UsedBytes: ptr.To(uint64(a.bytes)), InodesUsed: ptr.To(uint64(a.inodes))}
}

// on says which file system something is on.
func (f *FsStats) on(fs *FsStats) {
	if fs != nil {
		f.AvailableBytes, f.CapacityBytes, f.Inodes, f.InodesFree = fs.AvailableBytes, fs.CapacityBytes, fs.Inodes, fs.InodesFree
	}
}

func files(now metav1.Time, fs image.FsInfo) *FsStats {
	return &FsStats{
		Time: now, AvailableBytes: &fs.Available, CapacityBytes: &fs.Capacity, UsedBytes: ptr.To(less(fs.Capacity, fs.Available)),
		Inodes: &fs.Inodes, InodesFree: &fs.InodesFree, InodesUsed: ptr.To(less(fs.Inodes, fs.InodesFree)),
	}
}

// system are the groups of the node that are no pod's: those of all pods together.
func (s *Source) system() []ContainerStats {
	f, ok := s.group(s.Groups.Pods).read()
	if !ok {
		return nil
	}
	start := metav1.Time{Time: boot()}
	if info, err := os.Stat(s.Groups.Pods("memory")); err == nil {
		start = metav1.Time{Time: info.ModTime()}
	}
	return []ContainerStats{{Name: "pods", StartTime: start, CPU: f.cpuStats(), Memory: f.memoryStats(), Swap: f.swapStats(), IO: f.ioStats()}}
}

// bare ID of a container: without RUNTIME://.
func bare(id string) string {
	_, id, _ = strings.Cut(id, "://")
	return id
}
