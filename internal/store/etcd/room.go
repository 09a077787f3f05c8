package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sys/unix"

	"github.com/proa-dev/proa/internal/store"
)

// What a server in this process keeps free. etcd ends its process when it cannot
// write to its disk, so it must not come to that: writes are refused before.
const (
	// diskReserve is what the disk must have free: a segment of the log (64 MB,
	// made as a whole), and as much again for what goes on without clients (leases
	// that run out, compaction, snapshots of raft).
	diskReserve = 128 << 20
	// fileReserve is kept allocated behind the end of etcd's file, where nobody
	// else who fills the disk can take it.
	fileReserve = 16 << 20
	// diskEvery is how old what is known of the disk may be, and diskBytes how much
	// may be written meanwhile.
	diskEvery = 200 * time.Millisecond
	diskBytes = 1 << 20
	// roomEvery is how often a full store is looked at.
	roomEvery = 2 * time.Second
)

// room of a server's disk and file.
type room struct {
	dir   string // of the file
	soft  int64  // bytes of the file from which on nothing more is taken
	log   *slog.Logger
	disk  func(dir string) (free int64, err error)
	wake  chan struct{} // to the goroutine that makes room
	known atomic.Int64  // when the disk was looked at, in ns since 1970
	since atomic.Int64  // bytes written since
	added atomic.Int64  // bytes written since the file's pages were let go
	full  atomic.Pointer[string]
}

func newRoom(cfg *Config, quota int64) *room {
	r := &room{
		dir: filepath.Join(cfg.Dir, "member", "snap"), log: cfg.Logger, disk: cfg.disk, wake: make(chan struct{}, 1),
		soft: max(quota-quota/20-maxRequestBytes, quota/2),
	}
	if r.disk == nil {
		r.disk = freeOf
	}
	return r
}

func freeOf(dir string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return int64(fs.Bavail) * int64(fs.Bsize), nil
}

// Txn refuses what adds something while there is no room; deletions are how room
// is made.
func (s *embedded) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if size := adds(r); size > 0 {
		if why := s.lacks(size); why != "" {
			return nil, fmt.Errorf("%w: %s", store.ErrFull, why)
		}
	}
	return s.EtcdServer.Txn(ctx, r)
}

// adds is how many bytes a transaction writes.
func adds(r *pb.TxnRequest) (n int) {
	for _, op := range r.Success {
		if p := op.GetRequestPut(); p != nil {
			n += len(p.Key) + len(p.Value)
		}
	}
	return n
}

// lacks says why nothing can be written, "" = it can.
func (s *embedded) lacks(size int) string {
	r := s.room
	now := time.Now().UnixNano()
	if full := r.full.Load(); full != nil {
		return *full
	}
	written := r.since.Add(int64(size))
	if written < diskBytes && now-r.known.Load() < int64(diskEvery) && s.Backend().Size() < r.soft {
		return ""
	}
	return s.look()
}

// look at disk and file. What it finds is good until makeRoom finds otherwise.
func (s *embedded) look() string {
	r := s.room
	r.known.Store(time.Now().UnixNano())
	if r.added.Add(r.since.Swap(0)) > mappedMost {
		r.rouse()
	}
	why := s.short()
	if why != "" && r.full.CompareAndSwap(nil, &why) {
		r.log.Error("the store is full: until there is room nothing is written but deletions; reads go on", "why", why)
		s.reserve()
		r.rouse()
	}
	return why
}

func (r *room) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// short says what there is too little of.
func (s *embedded) short() string {
	r := s.room
	if free, err := r.disk(r.dir); err == nil && free < diskReserve {
		return fmt.Sprintf("the disk of %s has %d MB free and %d are needed: make room on it, or move the data folder to a larger one",
			r.dir, free>>20, diskReserve>>20)
	}
	if size := s.Backend().Size(); size >= r.soft {
		return fmt.Sprintf("%d MB of objects are kept, of which the limit is %d: delete some, or start the server with a larger --quota-backend-bytes",
			size>>20, r.soft>>20)
	}
	if len(s.noSpace()) > 0 {
		return "etcd has raised the alarm NOSPACE: it is about to be looked after"
	}
	return ""
}

func (s *embedded) noSpace() (all []*pb.AlarmMember) {
	for _, a := range s.Alarms() {
		if a.Alarm == pb.AlarmType_NOSPACE {
			all = append(all, a)
		}
	}
	return all
}

// keepRoom waits for the store to be full, and makes room until ctx ends. It lets the
// file's pages go when there are many new ones.
func (s *embedded) keepRoom(ctx context.Context) {
	s.reserve()
	s.room.added.Store(mappedMost) // all of the file was mapped in at the start
	if s.look() == "" {            // an alarm may come with the data
		s.log.Debug("the store has room", "limit", s.room.soft)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.room.wake:
		}
		if s.room.added.Load() > mappedMost {
			s.room.added.Store(0)
			s.letGo()
		}
		for at := int64(-1); s.room.full.Load() != nil; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(roomEvery):
			}
			at = s.makeRoom(ctx, at)
		}
	}
}

// makeRoom forgets history and gives back what is free in the file. at is the
// revision at which that was done last; it returns the one at which it is now.
func (s *embedded) makeRoom(ctx context.Context, at int64) int64 {
	r := s.room
	if rev := s.KV().Rev(); rev != at && s.leads() && rev > 1 { // something was deleted, say
		at = rev
		if _, err := s.Compact(ctx, &pb.CompactionRequest{Revision: rev, Physical: true}); err != nil {
			s.log.Debug("compact", "err", err) // it is compacted already
		}
	}
	size, used := s.Backend().Size(), s.Backend().SizeInUse()
	free, err := r.disk(r.dir)
	if size >= r.soft && used < r.soft-r.soft/10 && err == nil && free > used+fileReserve {
		if err := s.Defragment(); err != nil {
			s.log.Error("the store's file could not be made smaller", "err", err)
		}
	}
	if s.Backend().Size() < r.soft {
		for _, a := range s.noSpace() {
			if _, err := s.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: a.MemberID, Alarm: a.Alarm}); err != nil {
				s.log.Error("the alarm NOSPACE could not be taken back", "err", err)
			}
		}
	}
	if why := s.short(); why != "" {
		r.full.Store(&why)
		return at
	}
	r.full.Store(nil)
	s.reserve()
	r.log.Info("the store has room again")
	return at
}

// reserve blocks behind the end of the file. A file system that cannot does without.
func (s *embedded) reserve() {
	f, err := os.OpenFile(filepath.Join(s.room.dir, "db"), os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, info.Size()+fileReserve)
	}
}

// Defragment writes the file anew, without what is free in it. Nothing is read or
// written meanwhile.
func (s *embedded) Defragment() error {
	defer s.reserve()
	return s.EtcdServer.Defragment()
}

// tidy gives disk space back when much of a big file is unused and the moment is
// quiet: few writes within a second. A moment that never comes is not waited for
// when half of the limit is used up.
func (s *embedded) tidy(ctx context.Context) {
	size, used := s.Backend().Size(), s.Backend().SizeInUse()
	if free := size - used; free < tidyFree || free < size/2 {
		return
	}
	before := s.KV().Rev()
	select {
	case <-ctx.Done():
		return
	case <-time.After(time.Second):
	}
	if s.KV().Rev()-before > quietWrites && size < s.room.soft/2 {
		return
	}
	if free, err := s.room.disk(s.room.dir); err != nil || free < used+diskReserve {
		return
	}
	started := time.Now()
	if err := s.Defragment(); err != nil {
		s.log.Warn("the store's file could not be made smaller", "err", err)
		return
	}
	s.log.Info("the store's file was made smaller", "from", size, "to", s.Backend().Size(), "took", time.Since(started).Round(time.Millisecond))
}

const (
	tidyFree    = 128 << 20
	quietWrites = 20
)
