package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/proa-dev/proa/internal/store"
)

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// TestQuota fills a store to its limit: writes are refused before etcd raises its
// alarm, reads and deletions go on, and once enough was deleted writes do, too.
func TestQuota(t *testing.T) {
	s := open(t, Config{Quota: 64 << 20})
	put := func(i int) error {
		_, err := s.Commit(t.Context(), store.Write{Key: fmt.Sprintf("/big/%04d", i), Value: bytes.Repeat([]byte{1}, 1<<20)})
		return err
	}
	n := 0
	var err error
	for err == nil && n < 100 {
		if err = put(n); err == nil {
			n++
		}
	}
	if !errors.Is(err, store.ErrFull) || n < 20 {
		t.Fatalf("after %d MB: %v", n, err)
	}
	if len(s.server.noSpace()) > 0 {
		t.Error("etcd has raised its alarm")
	}
	found := 0
	if _, err := s.Range(t.Context(), "/big/", store.RangeOptions{}, func(store.Entry) bool { found++; return true }); err != nil || found != n {
		t.Fatal(found, err)
	}
	for i := range n {
		if _, err := s.Commit(t.Context(), store.Write{Key: fmt.Sprintf("/big/%04d", i), Unsafe: true}); err != nil {
			t.Fatal("delete:", err)
		}
	}
	eventually(t, "writes go on", func() bool { return put(n) == nil })
}

// TestAlarm: an alarm that came with the data goes by itself.
func TestAlarm(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	if _, err := s.server.Alarm(t.Context(), &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(s.server.MemberID()), Alarm: pb.AlarmType_NOSPACE}); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	s = open(t, Config{Dir: dir})
	eventually(t, "writes go on", func() bool {
		_, err := s.Commit(t.Context(), store.Write{Key: "/a", Value: []byte("1")})
		return err == nil
	})
}

// TestFullDisk: nothing is written while the disk has little left.
func TestFullDisk(t *testing.T) {
	var free atomic.Int64
	free.Store(diskReserve + 1)
	s := open(t, Config{disk: func(string) (int64, error) { return free.Load(), nil }})
	put := func() error {
		_, err := s.Commit(t.Context(), store.Write{Key: "/a", Value: []byte("1"), Unsafe: true})
		return err
	}
	if err := put(); err != nil {
		t.Fatal(err)
	}
	free.Store(diskReserve - 1)
	eventually(t, "writes are refused", func() bool { return errors.Is(put(), store.ErrFull) })
	if _, err := s.Commit(t.Context(), store.Write{Key: "/a", Unsafe: true}); err != nil {
		t.Error("delete:", err)
	}
	free.Store(diskReserve + 1)
	eventually(t, "writes go on", func() bool { return put() == nil })
}

// TestDefragments: a file of which most is free gets smaller in a quiet moment.
func TestDefragments(t *testing.T) {
	s := open(t, Config{History: 250 * time.Millisecond})
	for i := range 200 {
		if _, err := s.Commit(t.Context(), store.Write{Key: fmt.Sprint("/a/", i), Value: bytes.Repeat([]byte{byte(i)}, 1<<20)}); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := s.Size(t.Context())
	if before < 200<<20 {
		t.Fatalf("%d bytes", before)
	}
	for i := range 200 {
		if _, err := s.Commit(t.Context(), store.Write{Key: fmt.Sprint("/a/", i), Unsafe: true}); err != nil {
			t.Fatal(err)
		}
	}
	// etcd counts what became free with its next write.
	little := time.Time{}
	eventually(t, "the file is smaller", func() bool {
		if time.Since(little) > 500*time.Millisecond {
			little = time.Now()
			_, _ = s.Commit(t.Context(), store.Write{Key: "/b", Value: []byte("1"), Unsafe: true})
		}
		n, _ := s.Size(t.Context())
		return n < before/2
	})
}

// TestSnapshot saves a store while it is written to, and restores it elsewhere.
func TestSnapshot(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: filepath.Join(dir, "old")})
	for i := range 100 {
		if _, err := s.Commit(t.Context(), store.Write{Key: fmt.Sprintf("/a/%03d", i), Value: []byte("old"), TTL: time.Duration(i%2) * time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	var file bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ctx.Err() == nil; i++ {
			_, _ = s.Commit(ctx, store.Write{Key: fmt.Sprintf("/b/%d", i), Value: []byte("later")})
		}
	}()
	err := s.Snapshot(t.Context(), &file)
	cancel()
	<-ended
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "snap")
	write := func(data []byte) {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for what, bad := range map[string][]byte{"cut off": file.Bytes()[:file.Len()-100], "damaged": append([]byte{1}, file.Bytes()[1:]...), "no snapshot": []byte("hello")} {
		write(bad)
		if err := Restore(name, filepath.Join(dir, "bad"), quiet); err == nil {
			t.Error(what, "was restored")
		}
		if _, err := CheckSnapshot(name, quiet); err == nil {
			t.Error(what, "is good")
		}
	}
	write(file.Bytes())
	st, err := CheckSnapshot(name, quiet)
	if err != nil || st.TotalKeys < 100 || st.Revision < 101 || st.TotalSize == 0 {
		t.Fatalf("%+v %v", st, err)
	}
	if err := Restore(name, filepath.Join(dir, "old"), quiet); err == nil {
		t.Error("restored over what is there")
	}
	if err := Restore(name, filepath.Join(dir, "new"), quiet); err != nil {
		t.Fatal(err)
	}
	again := open(t, Config{Dir: filepath.Join(dir, "new")})
	n := 0
	rev, err := again.Range(t.Context(), "/a/", store.RangeOptions{}, func(e store.Entry) bool {
		if n++; e.Revision > 101 || string(e.Value) != "old" {
			t.Errorf("%+v", e)
		}
		return true
	})
	if err != nil || n != 100 || rev < st.Revision+restoreBump {
		t.Errorf("%d entries at %d: %v", n, rev, err)
	}
	stream, err := again.Watch(t.Context(), st.Revision+5)
	if err != nil {
		t.Fatal(err)
	}
	for range stream.Batches() {
		t.Error("a watch from before the restore goes on")
	}
	if !errors.Is(stream.Err(), store.ErrCompacted) {
		t.Error(stream.Err())
	}
	next, err := again.Commit(t.Context(), store.Write{Key: "/a/000", Value: []byte("new"), Unsafe: true})
	if err != nil || next <= st.Revision+restoreBump {
		t.Error(next, err)
	}
}
