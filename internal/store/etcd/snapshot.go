package etcd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/embed"
)

// Snapshot writes the whole of etcd as it is now, in the form of "etcdctl snapshot
// save": its file, and behind it the SHA-256 of that.
func (s *Store) Snapshot(ctx context.Context, w io.Writer) error {
	return failure(ctx, s.server.snapshot(ctx, w))
}

func (s *embedded) snapshot(ctx context.Context, w io.Writer) error {
	snap := s.Backend().Snapshot()
	defer snap.Close()
	hash := sha256.New()
	if _, err := snap.WriteTo(contextWriter{ctx, io.MultiWriter(w, hash)}); err != nil {
		return err
	}
	_, err := w.Write(hash.Sum(nil))
	return err
}

func (s *external) snapshot(ctx context.Context, w io.Writer) error {
	r, err := s.client.Snapshot(clientv3.WithRequireLeader(ctx))
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}

// contextWriter fails once its context has ended.
type contextWriter struct {
	ctx context.Context
	io.Writer
}

func (w contextWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.Writer.Write(p)
}

// SnapshotStatus says what is in a snapshot.
type SnapshotStatus struct {
	Hash      string `json:"hash"`     // CRC-32C of keys and values, as etcdutl prints it
	Revision  int64  `json:"revision"` // of the last write in it
	TotalKeys int    `json:"totalKeys"`
	TotalSize int64  `json:"totalSize"` // bytes
	Version   string `json:"version"`   // of etcd's storage, "" = before 3.6
}

// CheckSnapshot reads a snapshot whole. The error says whether it is damaged.
func CheckSnapshot(file string, log *slog.Logger) (*SnapshotStatus, error) {
	if err := checkSum(file); err != nil {
		return nil, err
	}
	st, err := snapshot.NewV3(zapLogger(log)).Status(file)
	if err != nil {
		return nil, fmt.Errorf("%s is no snapshot of etcd, or is damaged: %w", file, err)
	}
	return &SnapshotStatus{fmt.Sprintf("%x", st.Hash), st.Revision, st.TotalKey, st.TotalSize, st.Version}, nil
}

// sector is what the size of etcd's file is a multiple of; a snapshot has a hash more.
const sector = 512

// checkSum holds a snapshot against the hash at its end.
func checkSum(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if size < sector || size%sector != sha256.Size {
		return fmt.Errorf("%s has no hash at its end: it is cut off, or not made by a snapshot save", file)
	}
	hash := sha256.New()
	if _, err := io.CopyN(hash, f, size-sha256.Size); err != nil {
		return err
	}
	want, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if !bytes.Equal(hash.Sum(nil), want) {
		return fmt.Errorf("%s is damaged: its contents do not have the hash at its end", file)
	}
	return nil
}

// restoreBump is added to the revision by a restore. The cluster may have gone on
// after the snapshot, and its clients may remember revisions that are now written
// anew: so they are left out, and asking for them is ErrCompacted.
const restoreBump = 1_000_000_000

// Restore makes an etcd of a snapshot, in a folder that is not there or empty. The
// etcd is one server that Open starts.
func Restore(file, dir string, log *slog.Logger) error {
	if err := checkSum(file); err != nil {
		return err
	}
	switch there, err := os.ReadDir(dir); {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	case len(there) > 0:
		return fmt.Errorf("%s is not empty: a restore replaces nothing; move what is there away, or name another folder", dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	// Made beside its place, so that there is never half of it.
	half := dir + ".restoring"
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	defer os.RemoveAll(half)
	c := embed.NewConfig()
	err := snapshot.NewV3(zapLogger(log)).Restore(snapshot.RestoreConfig{
		SnapshotPath: file, OutputDataDir: half,
		Name: c.Name, PeerURLs: []string{c.AdvertisePeerUrls[0].String()},
		InitialCluster: c.InitialClusterFromName(c.Name), InitialClusterToken: c.InitialClusterToken,
		RevisionBump: restoreBump, MarkCompacted: true,
	})
	if err != nil {
		return fmt.Errorf("restore %s: %w", file, err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Rename(half, dir)
}
