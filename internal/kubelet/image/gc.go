package image

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Shares of a file system as upstream's kubelet has them. A share of a large disk
// is far more than images and pods need: whoever has a terabyte and 100 GB of it
// free is not short of space. So a share counts only while less than room is free.
const (
	highPercent = 85 // images go when the file system is this full …
	lowPercent  = 80 // … until it is only this full
	room        = 16 << 30
	minAge      = 2 * time.Minute
	maxShown    = 50
)

// List the images on the node for its status: the largest first, at most 50.
func (m *Manager) List(ctx context.Context) ([]v1.ContainerImage, error) {
	r, err := m.rt.Images.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(r.Images, func(a, b *cri.Image) int { return cmp.Compare(b.Size, a.Size) })
	var list []v1.ContainerImage
	for _, i := range r.Images[:min(len(r.Images), maxShown)] {
		names := append(slices.Clone(i.RepoDigests), i.RepoTags...)
		list = append(list, v1.ContainerImage{Names: names[:min(len(names), 5)], SizeBytes: int64(i.Size)})
	}
	return list, nil
}

// FsInfo of the file system that images are on.
type FsInfo struct {
	Mountpoint                  string
	Capacity, Available, Used   uint64
	Inodes, InodesFree, Percent uint64
}

// FsInfo asks the runtime where images are, and the kernel how full that is.
func (m *Manager) FsInfo(ctx context.Context) (FsInfo, error) {
	r, err := m.rt.Images.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{})
	if err != nil {
		return FsInfo{}, err
	}
	if len(r.ImageFilesystems) == 0 {
		return FsInfo{}, fmt.Errorf("the container runtime names no image file system")
	}
	fs := r.ImageFilesystems[0]
	info, err := Stat(fs.GetFsId().GetMountpoint())
	info.Used = fs.GetUsedBytes().GetValue()
	return info, err
}

// Stat a file system.
func Stat(path string) (FsInfo, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return FsInfo{}, fmt.Errorf("file system of %s: %w", path, err)
	}
	size := uint64(st.Bsize)
	i := FsInfo{Mountpoint: path, Capacity: st.Blocks * size, Available: st.Bavail * size, Inodes: st.Files, InodesFree: st.Ffree}
	if i.Capacity > 0 {
		i.Percent = 100 - 100*i.Available/i.Capacity
	}
	return i, nil
}

// Short says whether less than a share of the file system is free, in hundredths, and
// less than 16 GiB; or less than 5 % of its inodes. It says how much there should be.
func (i FsInfo) Short(percent uint64) (why string, short bool) {
	want := min(i.Capacity/100*percent, room)
	switch {
	case i.Capacity > 0 && i.Available < want:
		return fmt.Sprintf("Threshold quantity: %dKi, available: %dKi", want>>10, i.Available>>10), true
	case i.Inodes > 0 && i.InodesFree*100 < i.Inodes*5:
		return fmt.Sprintf("Threshold quantity: %d inodes, available: %d", i.Inodes/20, i.InodesFree), true
	}
	return "", false
}

// Collect removes unused images, the longest unused first, when their file
// system is nearly full; all unused ones when told to.
func (m *Manager) Collect(ctx context.Context, all bool) error {
	fs, err := m.FsInfo(ctx)
	if err != nil {
		return err
	}
	goal := int64(0)
	if _, short := fs.Short(100 - highPercent); short {
		goal = int64(min(fs.Capacity/100*(100-lowPercent), room+room/4)) - int64(fs.Available)
	}
	if goal <= 0 && !all {
		return nil
	}
	images, err := m.rt.Images.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return err
	}
	containers, err := m.rt.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return err
	}
	for _, i := range m.unused(images.Images, containers.Containers, time.Now()) {
		if goal <= 0 && !all {
			return nil
		}
		if _, err := m.rt.Images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: i.Id}}); err != nil {
			m.log.Warn("image not removed", "image", i.Id, "err", err)
			continue
		}
		m.log.Info("image removed to free space", "image", i.Id, "tags", i.RepoTags, "bytes", i.Size)
		goal -= int64(i.Size)
	}
	if goal > 0 && !all {
		return fmt.Errorf("image file system %s is %d %% full, and there are not enough unused images to remove", fs.Mountpoint, fs.Percent)
	}
	return nil
}

func (m *Manager) unused(images []*cri.Image, containers []*cri.Container, now time.Time) []*cri.Image {
	m.mu.Lock()
	defer m.mu.Unlock()
	in := map[string]bool{}
	for _, c := range containers {
		in[c.ImageRef], in[c.GetImage().GetImage()], in[c.ImageId] = true, true, true
		m.used[c.ImageId] = now
	}
	var list []*cri.Image
	for _, i := range images {
		if i.Pinned || in[i.Id] || slices.ContainsFunc(i.RepoDigests, func(d string) bool { return in[d] }) {
			continue
		}
		seen, ok := m.used[i.Id]
		if !ok {
			m.used[i.Id] = now // first seen; its age counts from here
			continue
		}
		if now.Sub(seen) >= minAge {
			list = append(list, i)
		}
	}
	slices.SortFunc(list, func(a, b *cri.Image) int { return m.used[a.Id].Compare(m.used[b.Id]) })
	return list
}
