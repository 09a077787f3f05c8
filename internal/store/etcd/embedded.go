package etcd

import (
	"cmp"
	"context"
	"expvar"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-dev/proa/internal/store"
)

// Config of an etcd server in this process.
type Config struct {
	Dir     string        // where it keeps its data; made if it is not there
	Prefix  string        // before all keys, "" = DefaultPrefix
	History time.Duration // how long old values can be read, 0 = DefaultHistory, < 0 = for ever
	Quota   int64         // bytes its file may have, 0 = 8 GiB
	Logger  *slog.Logger

	// Tick is the server's clock. 0 = 1 s alone, 100 ms in a cluster, where it is
	// the heartbeat: a tenth of the time after which a leader is taken for dead.
	Tick   time.Duration
	Member *Member // nil = the only server
	Listen *Listen // nil = nobody but this process reaches it

	disk func(dir string) (free int64, err error) // nil = asks the kernel; tests have others
}

// Member of a cluster of servers.
type Member struct {
	Name    string
	Listen  []string // URLs for the other members: https://0.0.0.0:2380
	Peers   []string // the same as the others reach them: https://10.0.0.1:2380
	Initial string   // all members, "a=https://10.0.0.1:2380,b=https://…"; "" = this one alone
	Join    bool     // the cluster is there already, and AddMember was called on it
	TLS     TLS      // both sides show certificates
}

// Listen lets etcdctl and other clients in.
type Listen struct {
	URLs []string // https://127.0.0.1:2379 or unix:///run/proa/etcd.sock
	TLS  TLS      // of https: clients must show a certificate of the CA
}

// TLS files in PEM.
type TLS struct{ Cert, Key, CA string }

func (t TLS) info() transport.TLSInfo {
	return transport.TLSInfo{CertFile: t.Cert, KeyFile: t.Key, TrustedCAFile: t.CA, ClientCertAuth: t.CA != ""}
}

// Limits of the server in this process.
const (
	maxTxnOps       = 10_000
	maxRequestBytes = 16 << 20
	quotaBytes      = 8 << 30
)

// Open starts a server and returns once it answers.
func Open(ctx context.Context, cfg Config) (*Embedded, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ec, err := cfg.etcd()
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	e, err := embed.StartEtcd(ec)
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", cfg.Dir, err)
	}
	s := &embedded{EtcdServer: e.Server, etcd: e, log: cfg.Logger, room: newRoom(&cfg, ec.QuotaBackendBytes)}
	if err := s.waitReady(ctx); err != nil {
		_ = s.close()
		return nil, fmt.Errorf("start etcd in %s: %w", cfg.Dir, err)
	}
	if cfg.Member != nil {
		if err := s.announce(ctx, cfg.Member.Peers); err != nil {
			_ = s.close()
			return nil, fmt.Errorf("etcd: tell the cluster this member's peer URLs: %w", err)
		}
	}
	st := newStore(s, cfg.Prefix, cfg.History, cfg.Logger)
	st.wg.Go(func() { s.keepRoom(st.ctx) })
	return &Embedded{Store: st, server: s}, nil
}

func (cfg *Config) etcd() (*embed.Config, error) {
	ec := embed.NewConfig()
	ec.Dir = cfg.Dir
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapLogger(cfg.Logger))
	ec.ListenPeerUrls, ec.ListenClientUrls = nil, nil
	ec.EnableGRPCGateway = false
	ec.MaxTxnOps, ec.MaxRequestBytes, ec.QuotaBackendBytes = maxTxnOps, maxRequestBytes, cmp.Or(cfg.Quota, quotaBytes)
	ec.BackendFreelistType = "map"
	// What is read again at the start, and the log that is kept in memory: both
	// short, for an entry is a whole object. The second must be well above the
	// first: raft must find every entry that it applies at the start still there
	// when it is told to stand for election (waitReady).
	ec.SnapshotCount, ec.SnapshotCatchUpEntries = 1000, 2000
	ec.MaxSnapFiles, ec.MaxWalFiles = 2, 2
	ec.AutoCompactionMode, ec.AutoCompactionRetention = "periodic", "0" // Store does it

	tick := cfg.Tick
	if tick == 0 {
		tick = time.Second
		if cfg.Member != nil {
			tick = 100 * time.Millisecond
		}
	}
	ec.TickMs = uint(tick.Milliseconds())
	ec.ElectionMs = 10 * ec.TickMs

	var err error
	if m := cfg.Member; m != nil {
		ec.Name, ec.PeerTLSInfo = m.Name, m.TLS.info()
		ec.SnapshotCount, ec.SnapshotCatchUpEntries = 2500, 5000 // for members that lag
		if ec.ListenPeerUrls, err = urls(m.Listen); err != nil {
			return nil, err
		}
		if ec.AdvertisePeerUrls, err = urls(m.Peers); err != nil {
			return nil, err
		}
		if ec.InitialCluster = m.Initial; m.Initial == "" {
			ec.InitialCluster = m.Name + "=" + strings.Join(m.Peers, ","+m.Name+"=")
		}
		if m.Join {
			ec.ClusterState = embed.ClusterStateFlagExisting
		}
	} else {
		ec.InitialCluster = ec.InitialClusterFromName(ec.Name)
	}
	if l := cfg.Listen; l != nil {
		if ec.ListenClientUrls, err = urls(l.URLs); err != nil {
			return nil, err
		}
		ec.ClientTLSInfo = l.TLS.info()
		var reachable []url.URL
		for _, u := range ec.ListenClientUrls {
			if u.Scheme == "http" || u.Scheme == "https" {
				reachable = append(reachable, u)
			}
		}
		if len(reachable) > 0 {
			ec.AdvertiseClientUrls = reachable
		}
	}
	return ec, nil
}

func urls(text []string) ([]url.URL, error) {
	var all []url.URL
	for _, t := range text {
		u, err := url.Parse(t)
		if err != nil {
			return nil, err
		}
		all = append(all, *u)
	}
	return all, nil
}

// embedded is a server in this process.
type embedded struct {
	*etcdserver.EtcdServer
	etcd *embed.Etcd
	log  *slog.Logger
	room *room
}

// waitReady waits until the server has a leader and has applied its log. A server
// that is alone is told to stand for election at once: there is nobody to wait
// for, and its clock is slow. Not before raft itself knows that its log is applied,
// though: raft looks through what it takes to be yet to apply, and ends the process
// if that was dropped under its hands.
func (s *embedded) waitReady(ctx context.Context) error {
	nudge := time.NewTicker(2 * time.Millisecond)
	defer nudge.Stop()
	for {
		select {
		case <-s.ReadyNotify():
			return nil
		case <-s.StopNotify():
			return fmt.Errorf("it stopped by itself")
		case err := <-s.etcd.Err():
			return err
		case <-ctx.Done():
			return fmt.Errorf("it was not ready in time: %w", ctx.Err())
		case <-nudge.C:
			if id := uint64(s.MemberID()); s.Lead() == 0 && s.alone() && settled(id) {
				_ = s.Process(ctx, raftpb.Message{Type: raftpb.MsgTimeoutNow, From: id, To: id})
			}
		}
	}
}

// settled says whether raft knows that it has applied all that is committed. etcd
// shows raft's own state as a variable alone, that of the server which began last: of
// another nothing is said, and its clock has to do.
func settled(id uint64) bool {
	f, ok := expvar.Get("raft.status").(expvar.Func)
	if !ok {
		return false
	}
	st, ok := f.Value().(raft.Status)
	return ok && st.ID == id && st.Commit > 0 && st.Applied == st.Commit
}

func (s *embedded) alone() bool { return len(s.Cluster().Members()) == 1 }

func (s *embedded) leads() bool { return s.Leader() == s.MemberID() }

func (s *embedded) maxOps() int { return maxTxnOps }

// revision is linearizable. What a lone server has acknowledged it has applied.
func (s *embedded) revision(ctx context.Context) (int64, error) {
	if !s.alone() {
		if err := s.LinearizableReadNotify(ctx); err != nil {
			return 0, err
		}
	}
	select {
	case <-s.StoppingNotify():
		return 0, store.ErrUnavailable
	default:
		return s.KV().Rev(), nil
	}
}

func (s *embedded) size(context.Context) (int64, error) { return s.Backend().Size(), nil }

func (s *embedded) close() error {
	if s.alone() {
		s.HardStop() // there is nobody to hand the leadership to
	}
	s.etcd.Close()
	return nil
}

// watchMost is how many commits may wait here for a slow reader. Beyond that they
// stay in etcd, which reads them from disk again.
const watchMost = 20_000

func (s *embedded) watch(ctx context.Context, after int64, split *splitter, out chan<- store.Batch) error {
	ws := s.Watchable().NewWatchStream()
	defer ws.Close()
	if _, err := ws.Watch(0, []byte{0}, []byte{}, after+1); err != nil {
		return err
	}
	// etcd hands events over without waiting for anybody: who does not take them
	// at once is made to catch up in steps of 10 and 100 ms. So take them.
	var queue []store.Batch
	for {
		in, give := ws.Chan(), out
		var first store.Batch
		if len(queue) == 0 {
			give = nil
		} else {
			first = queue[0]
		}
		if len(queue) > watchMost {
			in = nil
		}
		select {
		case r, ok := <-in:
			switch {
			case !ok:
				return store.ErrUnavailable
			case r.CompactRevision != 0:
				return store.ErrCompacted
			}
			queue = append(queue, split.split(r.Events, 0)...)
		case give <- first:
			queue[0] = store.Batch{}
			queue = queue[1:]
		case <-ctx.Done():
			return ctx.Err()
		case <-s.StoppingNotify():
			return store.ErrUnavailable
		}
	}
}

// Embedded is the Store of a server in this process.
type Embedded struct {
	*Store
	server *embedded
}

// MemberInfo is one server of a cluster.
type MemberInfo struct {
	ID    uint64
	Name  string // "" = it was added but has not started yet
	Peers []string
}

// Members of the cluster.
func (e *Embedded) Members() []MemberInfo {
	var all []MemberInfo
	for _, m := range e.server.Cluster().Members() {
		all = append(all, MemberInfo{uint64(m.ID), m.Name, m.PeerURLs})
	}
	return all
}

// Done is closed when the server has stopped, by Close or by itself.
func (e *Embedded) Done() <-chan struct{} { return e.server.StopNotify() }

func peerURLs(text []string) (types.URLs, error) { return types.NewURLs(text) }
