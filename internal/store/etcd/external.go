package etcd

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/proa-dev/proa/internal/store"
)

// External is an etcd that runs elsewhere.
type External struct {
	Endpoints []string // https://10.0.0.1:2379
	TLS       *tls.Config
	Prefix    string        // before all keys, "" = DefaultPrefix
	History   time.Duration // how long old values can be read, 0 = DefaultHistory, < 0 = others see to it
	Logger    *slog.Logger
}

// Dial connects to an etcd and returns once it answers.
func Dial(ctx context.Context, cfg External) (*Store, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, fmt.Errorf("etcd: no server is named; give at least one, such as https://10.0.0.1:2379")
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            cfg.Endpoints,
		TLS:                  cfg.TLS,
		DialTimeout:          10 * time.Second,
		DialKeepAliveTime:    30 * time.Second,
		DialKeepAliveTimeout: 10 * time.Second,
		MaxCallSendMsgSize:   maxRequestBytes,
		Logger:               zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("etcd at %v: %w", cfg.Endpoints, err)
	}
	prefix := cfg.Prefix
	if prefix == "" {
		prefix = DefaultPrefix
	}
	s := &external{KVClient: clientv3.RetryKVClient(client), leases: clientv3.RetryLeaseClient(client), client: client, prefix: prefix}
	ask, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if _, err := s.revision(ask); err != nil {
		_ = client.Close()
		return nil, fmt.Errorf("etcd at %v does not answer: %w", cfg.Endpoints, err)
	}
	return newStore(s, cfg.Prefix, cfg.History, cfg.Logger), nil
}

type external struct {
	pb.KVClient
	leases pb.LeaseClient
	client *clientv3.Client
	prefix string
	seen   atomic.Int64 // how far the watch has come
}

// answerWithin is how long one call may take.
const answerWithin = 15 * time.Second

func (s *external) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return s.KVClient.Range(ctx, r, grpc.MaxCallRecvMsgSize(1<<30))
}

func (s *external) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return s.KVClient.Txn(ctx, r, grpc.MaxCallRecvMsgSize(1<<30))
}

func (s *external) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	return s.KVClient.Compact(ctx, r)
}

func (s *external) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return s.leases.LeaseGrant(ctx, r)
}

// revision asks etcd. When others write to the same etcd, outside of our prefix,
// the watch does not tell of it by itself: it is made to.
func (s *external) revision(ctx context.Context) (int64, error) {
	resp, err := s.Range(ctx, &pb.RangeRequest{Key: []byte(s.prefix), CountOnly: true})
	if err != nil {
		return 0, err
	}
	if seen := s.seen.Load(); seen > 0 && seen < resp.Header.Revision {
		_ = s.client.RequestProgress(clientv3.WithRequireLeader(ctx))
	}
	return resp.Header.Revision, nil
}

func (s *external) watch(ctx context.Context, after int64, split *splitter, out chan<- store.Batch) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := s.client.Watch(clientv3.WithRequireLeader(ctx), s.prefix+"/", clientv3.WithPrefix(), clientv3.WithRev(after+1), clientv3.WithFragment(), clientv3.WithProgressNotify())
	s.seen.Store(after)
	for resp := range watch {
		switch {
		case resp.CompactRevision != 0:
			return store.ErrCompacted
		case resp.Err() != nil:
			return resp.Err()
		}
		events := make([]mvccpb.Event, len(resp.Events))
		for i, e := range resp.Events {
			events[i] = mvccpb.Event(*e)
		}
		var rev int64
		if resp.IsProgressNotify() {
			rev = resp.Header.Revision
		} else if n := len(events); n > 0 {
			rev = events[n-1].Kv.ModRevision
		}
		for _, b := range split.split(events, rev) {
			select {
			case out <- b:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		s.seen.Store(max(rev, s.seen.Load()))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return store.ErrUnavailable
}

func (s *external) size(ctx context.Context) (int64, error) {
	status, err := s.client.Status(ctx, s.client.Endpoints()[0])
	if err != nil {
		return 0, err
	}
	return status.DbSize, nil
}

func (s *external) leads() bool          { return true } // compacting what is compacted is no error
func (s *external) maxOps() int          { return 0 }
func (s *external) tidy(context.Context) {} // its own operators' business
func (s *external) close() error         { return s.client.Close() }
