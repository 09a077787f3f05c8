package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/proa-dev/proa/internal/store/etcd"
)

// snapshotPath streams a snapshot to the cluster's owner.
const snapshotPath = "/proa/v1/etcd/snapshot"

// SnapshotStatus says what is in a snapshot.
type SnapshotStatus = etcd.SnapshotStatus

// snapshotter is a store that can be saved as a whole.
type snapshotter interface {
	Snapshot(ctx context.Context, w io.Writer) error
}

func (s *storage) snapshot(ctx context.Context, w io.Writer) error {
	from, ok := s.Store.(snapshotter)
	if !ok {
		return errors.New("this store has no snapshots")
	}
	return from.Snapshot(ctx, w)
}

// serveSnapshot answers a GET. A client tells by the hash at the end whether it
// has got everything.
func (s *storage) serveSnapshot(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		http.Error(w, "GET makes a snapshot", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := s.snapshot(r.Context(), w); err != nil {
		panic(http.ErrAbortHandler) // the answer has begun
	}
}

// SaveSnapshot writes a snapshot of the cluster that a kubeconfig and context name
// ("" = as kubectl chooses them) to a file, which is there whole or not at all.
func SaveSnapshot(ctx context.Context, kubeconfig, context, file string) (*SnapshotStatus, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("%w: is there a cluster? (--kubeconfig and --context name one; a server's is DATA-DIR/admin.kubeconfig)", err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	return writeSnapshot(file, func(w io.Writer) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(config.Host, "/")+snapshotPath, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(r)
		if err != nil {
			return fmt.Errorf("the cluster does not answer: %w", err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
			return fmt.Errorf("the cluster refuses: %s", strings.TrimSpace(string(text)))
		}
		_, err = io.Copy(w, resp.Body)
		return err
	})
}

// writeSnapshot makes a file of what save writes, once it is known to be good.
func writeSnapshot(file string, save func(io.Writer) error) (st *SnapshotStatus, err error) {
	part := file + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(part)
		}
	}()
	err = save(f)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return nil, err
	}
	if st, err = etcd.CheckSnapshot(part, slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	return st, os.Rename(part, file)
}

// CheckSnapshot says what is in a file.
func CheckSnapshot(file string) (*SnapshotStatus, error) {
	return etcd.CheckSnapshot(file, slog.New(slog.DiscardHandler))
}

// RestoreSnapshot makes the store of a server's data folder from a snapshot, of
// Proa or of another cluster. There may be none yet, and no server may run.
func RestoreSnapshot(file, dataDir string) error {
	dataDir, err := filepath.Abs(dataDir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dataDir, 0o711); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(dataDir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	return etcd.Restore(file, filepath.Join(dataDir, "etcd"), slog.New(slog.DiscardHandler))
}

// Snapshots that a server makes by itself.
type Snapshots struct {
	Schedule  string // as of cron: "0 */12 * * *"; "" = none
	Dir       string // "" = DATA-DIR/snapshots
	Retention int    // how many stay; 0 = all
}

const snapshotPrefix = "etcd-snapshot-"

// scheduled makes snapshots until ctx ends.
func (s *storage) scheduled(ctx context.Context, o Snapshots, log *slog.Logger) error {
	when, err := cron.ParseStandard(o.Schedule)
	if err != nil {
		return fmt.Errorf("--etcd-snapshot-schedule-cron %q: %w; write five fields, such as \"0 */12 * * *\"", o.Schedule, err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("--etcd-snapshot-dir: %w", err)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(when.Next(time.Now()))):
		}
		file := filepath.Join(o.Dir, snapshotPrefix+time.Now().UTC().Format("20060102T150405Z"))
		st, err := writeSnapshot(file, func(w io.Writer) error { return s.snapshot(ctx, w) })
		if err != nil {
			log.Error("a scheduled snapshot failed", "file", file, "err", err)
			continue
		}
		log.Info("snapshot", "file", file, "revision", st.Revision, "size", st.TotalSize)
		for _, old := range outdated(o.Dir, o.Retention) {
			if err := os.Remove(old); err != nil {
				log.Error("an old snapshot stays", "err", err)
			}
		}
	}
}

// outdated are the scheduled snapshots of a folder but the newest ones.
func outdated(dir string, retention int) []string {
	all, _ := filepath.Glob(filepath.Join(dir, snapshotPrefix+"*Z"))
	slices.Sort(all) // by time: that is in their names
	if retention <= 0 || len(all) <= retention {
		return nil
	}
	return all[:len(all)-retention]
}
