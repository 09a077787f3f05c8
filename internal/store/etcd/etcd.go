// Package etcd keeps a store.Store in etcd: Open runs a server inside this
// process and calls it without any network or encoding between (alone, or as one
// member of a cluster), Dial uses one that runs elsewhere. Both lay out keys as
// Kubernetes does, below /registry, so that etcdctl and snapshots of other
// clusters fit.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/proa-dev/proa/internal/store"
)

// DefaultPrefix stands before all keys in etcd.
const DefaultPrefix = "/registry"

// DefaultHistory is how long overwritten values can still be read and watched.
const DefaultHistory = 5 * time.Minute

// server is what the two kinds of etcd have in common. *etcdserver.EtcdServer has
// the first four by itself.
type server interface {
	Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error)
	Txn(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error)
	Compact(context.Context, *pb.CompactionRequest) (*pb.CompactionResponse, error)
	LeaseGrant(context.Context, *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error)

	// watch splits what happens and sends it to out until ctx ends or it cannot go on.
	watch(ctx context.Context, after int64, s *splitter, out chan<- store.Batch) error
	revision(context.Context) (int64, error)
	size(context.Context) (int64, error)
	snapshot(context.Context, io.Writer) error
	leads() bool // whether compaction is this one's business
	maxOps() int // writes of a transaction, 0 = the server says
	tidy(context.Context)
	close() error
}

// Store is a store.Store in etcd.
type Store struct {
	server server
	prefix string
	log    *slog.Logger
	leases leases

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex // guards closed against new watches
	closed bool
	err    error // of closing
}

func newStore(s server, prefix string, history time.Duration, log *slog.Logger) *Store {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if prefix == "" {
		prefix = DefaultPrefix
	}
	if history == 0 {
		history = DefaultHistory
	}
	st := &Store{server: s, prefix: prefix, log: log}
	st.ctx, st.cancel = context.WithCancel(context.Background())
	if history > 0 {
		st.wg.Go(func() { st.compactor(history) })
	}
	return st
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, writes ...store.Write) (int64, error) {
	if err := store.CheckWrites(writes); err != nil {
		return 0, err
	}
	if most := s.server.maxOps(); most > 0 && len(writes) > most {
		return 0, fmt.Errorf("%w: %d writes, at most %d are possible", store.ErrTooLarge, len(writes), most)
	}
	resp, err := s.try(ctx, writes)
	if isLeaseGone(err) { // it ran out between being looked up and being used
		s.leases.forget()
		resp, err = s.try(ctx, writes)
	}
	switch {
	case err != nil:
		return 0, failure(ctx, err)
	case !resp.Succeeded:
		return 0, s.conflict(writes, resp)
	}
	return resp.Header.Revision, nil
}

func (s *Store) try(ctx context.Context, writes []store.Write) (*pb.TxnResponse, error) {
	txn := &pb.TxnRequest{Success: make([]*pb.RequestOp, 0, len(writes))}
	for _, w := range writes {
		key := []byte(s.prefix + w.Key)
		if !w.Unsafe {
			txn.Compare = append(txn.Compare, &pb.Compare{
				Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL,
				TargetUnion: &pb.Compare_ModRevision{ModRevision: w.Prior},
			})
			txn.Failure = append(txn.Failure, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}})
		}
		if w.Value == nil {
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}})
			continue
		}
		put := &pb.PutRequest{Key: key, Value: w.Value}
		if w.TTL > 0 {
			id, err := s.leases.get(ctx, s.server, w.TTL)
			if err != nil {
				return nil, err
			}
			put.Lease = id
		}
		txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
	}
	return s.server.Txn(ctx, txn)
}

// conflict finds the first write that did not hold.
func (s *Store) conflict(writes []store.Write, resp *pb.TxnResponse) error {
	n := 0
	for _, w := range writes {
		if w.Unsafe {
			continue
		}
		kvs := resp.Responses[n].GetResponseRange().Kvs
		n++
		switch {
		case len(kvs) == 0 && w.Prior != 0:
			return &store.Conflict{Key: w.Key}
		case len(kvs) > 0 && kvs[0].ModRevision != w.Prior:
			e := s.entry(kvs[0])
			return &store.Conflict{Key: w.Key, Current: &e}
		}
	}
	return fmt.Errorf("%w: a transaction failed although all its conditions hold", store.ErrUnavailable)
}

func (s *Store) entry(kv *mvccpb.KeyValue) store.Entry {
	return store.Entry{Key: string(kv.Key[len(s.prefix):]), Value: kv.Value, Created: kv.CreateRevision, Revision: kv.ModRevision}
}

// Revision implements store.Store.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	rev, err := s.server.revision(ctx)
	return rev, failure(ctx, err)
}

// Range implements store.Store.
func (s *Store) Range(ctx context.Context, prefix string, opt store.RangeOptions, visit func(store.Entry) bool) (int64, error) {
	from := s.prefix + max(prefix, opt.From)
	req := &pb.RangeRequest{Key: []byte(from), RangeEnd: prefixEnd(s.prefix + prefix), Revision: opt.Revision, Limit: int64(opt.Page)}
	if opt.Page <= 0 {
		req.Limit = firstPage
	}
	if from >= string(req.RangeEnd) {
		req.Key = []byte(s.prefix + prefix) // an empty range: only the revision is of interest
		visit = func(store.Entry) bool { return false }
	}
	for {
		resp, err := s.server.Range(ctx, req)
		if err != nil {
			return 0, failure(ctx, err)
		}
		if req.Revision == 0 {
			req.Revision = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			if !visit(s.entry(kv)) {
				return req.Revision, nil
			}
		}
		if !resp.More {
			return req.Revision, nil
		}
		req.Key = append(resp.Kvs[len(resp.Kvs)-1].Key, 0)
		req.Serializable = true // the revision is fixed: any member that has it will do
		if opt.Page <= 0 {
			req.Limit = min(2*req.Limit, lastPage)
		}
	}
}

// Pages grow, because etcd counts for each page all that is behind it.
const (
	firstPage = 500
	lastPage  = 4000
)

// prefixEnd is the first key after all that begin with prefix.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++ // "/" or a letter: never 0xff
	return end
}

// Compact implements store.Store.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	_, err := s.server.Compact(ctx, &pb.CompactionRequest{Revision: revision})
	if err = failure(ctx, err); errors.Is(err, store.ErrCompacted) {
		return nil
	}
	return err
}

// Size implements store.Store.
func (s *Store) Size(ctx context.Context) (int64, error) {
	n, err := s.server.size(ctx)
	return n, failure(ctx, err)
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.cancel()
		s.wg.Wait()
		s.err = s.server.close()
	}
	return s.err
}

// compactor forgets what is older than history. It looks at the revision a few
// times in that span and writes only when there is something to forget.
func (s *Store) compactor(history time.Duration) {
	const marks = 5
	tick := time.NewTicker(max(history/marks, time.Millisecond))
	defer tick.Stop()
	var past [marks]int64 // revisions, the oldest first
	var done int64
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		rev, err := s.server.revision(s.ctx)
		if err != nil {
			continue
		}
		oldest := past[0]
		copy(past[:], past[1:])
		past[marks-1] = rev
		if oldest > done && s.server.leads() {
			if err := s.Compact(s.ctx, oldest); err != nil {
				s.log.Warn("the store's history could not be compacted", "revision", oldest, "err", err)
				continue
			}
			done = oldest
		}
		s.server.tidy(s.ctx)
	}
}

func (s *Store) own(key []byte) bool {
	return strings.HasPrefix(string(key), s.prefix) && len(key) > len(s.prefix) && key[len(s.prefix)] == '/'
}
