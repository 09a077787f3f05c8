// Package stats tells what pods and the node use, in the shapes that metrics
// servers read: the summary API and Prometheus text.
package stats

import (
	"context"
	"io/fs"
	"path/filepath"
	"syscall"

	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

// Used by a pod, in bytes.
type Used struct{ Memory, Disk int64 }

// Usage of all pods.
func Usage(ctx context.Context, rt *runtime.Client) map[types.UID]Used {
	all := map[types.UID]Used{}
	r, err := rt.ListContainerStats(ctx, &cri.ListContainerStatsRequest{})
	if err != nil {
		return all
	}
	for _, s := range r.Stats {
		uid := types.UID(s.GetAttributes().GetLabels()[runtime.PodUIDLabel])
		u := all[uid]
		u.Memory += int64(s.GetMemory().GetWorkingSetBytes().GetValue())
		u.Disk += int64(s.GetWritableLayer().GetUsedBytes().GetValue())
		all[uid] = u
	}
	return all
}

// Writable bytes of containers, by "UID/name".
func Writable(ctx context.Context, rt *runtime.Client) map[string]int64 {
	all := map[string]int64{}
	r, err := rt.ListContainerStats(ctx, &cri.ListContainerStatsRequest{})
	if err != nil {
		return all
	}
	for _, s := range r.Stats {
		l := s.GetAttributes().GetLabels()
		all[l[runtime.PodUIDLabel]+"/"+l[runtime.ContainerNameLabel]] += int64(s.GetWritableLayer().GetUsedBytes().GetValue())
	}
	return all
}

// Tree is the number of bytes on disk below a folder.
func Tree(dir string) int64 { return tree(dir).bytes }

// tree is what a folder and all below it use. A hard link counts once for each name.
func tree(dir string) (a amount) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, gone error) error {
		if gone != nil {
			return nil
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				a.bytes += st.Blocks * 512
				a.inodes++
			}
		}
		return nil
	})
	return a
}
