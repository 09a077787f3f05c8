package kubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/kubelet/logs"
)

const (
	pressureEvery = 10 * time.Second
	logsEvery     = 10 * time.Second
	imagesEvery   = 5 * time.Minute
	linksEvery    = time.Hour
)

// housekeeping keeps the node from filling up.
func (k *kubelet) housekeeping(ctx context.Context) error {
	tick := time.NewTicker(pressureEvery)
	defer tick.Stop()
	var images, relisted, links time.Time
	relisted, links = time.Now(), time.Now()
	k.tellSandboxes(ctx)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		k.relieve(ctx)
		k.storageLimits(ctx)
		k.rotateLogs(ctx)
		now := time.Now()
		if now.Sub(images) > imagesEvery {
			images = now
			if err := k.images.Collect(ctx, false); err != nil {
				k.events.Warning(k.nodeRef(), "ImageGCFailed", "%v", err)
			}
		}
		if now.Sub(relisted) > relist {
			relisted = now
			k.tellAll(func(w *worker) { w.dirty = true })
			k.tellSandboxes(ctx)
		}
		if now.Sub(links) > linksEvery {
			links = now
			k.unlink()
		}
	}
}

// tellSandboxes says which there are to who keeps things for them.
func (k *kubelet) tellSandboxes(ctx context.Context) {
	if k.Sandboxes == nil {
		return
	}
	r, err := k.rt.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return // another time
	}
	var ids []string
	for _, s := range r.Items {
		ids = append(ids, s.Id)
	}
	if err := k.Sandboxes(ids); err != nil {
		k.log.Warn("what sandboxes have left behind is not taken back", "err", err)
	}
}

// rotateLogs of running containers that have grown too large.
func (k *kubelet) rotateLogs(ctx context.Context) {
	for _, s := range k.snapshot() {
		if s.pod == nil {
			continue
		}
		for _, dir := range logs.TooLarge(k.node.PodLogs(s.pod)) {
			r, err := k.rt.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{
				LabelSelector: map[string]string{"io.kubernetes.pod.uid": string(s.pod.UID), "io.kubernetes.container.name": filepath.Base(dir)},
				State:         &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING},
			}})
			if err != nil || len(r.Containers) == 0 {
				continue
			}
			if err := logs.Rotate(dir, func() error {
				_, err := k.rt.ReopenContainerLog(ctx, &cri.ReopenContainerLogRequest{ContainerId: r.Containers[0].Id})
				return err
			}); err != nil {
				k.log.Warn("log not rotated", "folder", dir, "err", err)
			}
		}
	}
}

// unlink the links to logs that are gone.
func (k *kubelet) unlink() {
	dir := filepath.Join(filepath.Dir(k.LogsDir), "containers")
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if _, err := os.Stat(path); os.IsNotExist(err) {
			_ = os.Remove(path)
		}
	}
}

// shareMounts makes a folder a mount whose submounts others see, which mounts
// with propagation need; where / is shared it is one already.
func shareMounts(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	if err := unix.Mount("", real, "", unix.MS_REC|unix.MS_SHARED, ""); err == nil {
		return nil
	}
	if shared("/") {
		return nil
	}
	if err := unix.Mount(real, real, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s onto itself, so that mounts in it propagate: %w", real, err)
	}
	return unix.Mount("", real, "", unix.MS_REC|unix.MS_SHARED, "")
}

// userns is the range of user IDs of a pod that has a user namespace of its own;
// it is kept with the pod.
func (k *kubelet) userns(p *v1.Pod) (*cri.UserNamespace, error) {
	if p.Spec.HostUsers == nil || *p.Spec.HostUsers {
		return nil, nil
	}
	if !k.features.UserNS {
		return nil, fmt.Errorf("the container runtime does not support user namespaces, which hostUsers: false asks for")
	}
	return k.idRange(p.UID)
}

const idsPerPod = 65536

// idRange finds or makes the range of a pod.
func (k *kubelet) idRange(uid types.UID) (*cri.UserNamespace, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	file := func(uid types.UID) string { return filepath.Join(k.volumes.PodDir(uid), "userns") }
	read := func(uid types.UID) (n uint32) {
		b, _ := os.ReadFile(file(uid))
		_, _ = fmt.Sscan(string(b), &n)
		return n
	}
	first := read(uid)
	if first == 0 {
		taken := map[uint32]bool{}
		for _, other := range k.volumes.Orphans() {
			taken[read(other)] = true
		}
		for first = idsPerPod; taken[first]; first += idsPerPod {
		}
		if err := os.MkdirAll(filepath.Dir(file(uid)), 0o750); err != nil {
			return nil, err
		}
		if err := os.WriteFile(file(uid), fmt.Appendf(nil, "%d\n", first), 0o600); err != nil {
			return nil, err
		}
	}
	ids := []*cri.IDMapping{{HostId: first, ContainerId: 0, Length: idsPerPod}}
	return &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: ids, Gids: ids}, nil
}

// shared says whether a mount point's mounts are seen by others.
func shared(point string) bool {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 6 && f[4] == point {
			return strings.Contains(line, " shared:")
		}
	}
	return false
}
