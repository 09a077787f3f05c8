package etcd

import (
	"context"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// leases shares etcd's leases among writes that expire at about the same time:
// one lives a little longer than was asked for, and serves as many writes as come
// in that while. An Event of an hour thus goes at most three minutes late.
type leases struct {
	mu    sync.Mutex
	byTTL map[time.Duration]*sharedLease
}

type sharedLease struct {
	mu   sync.Mutex
	id   int64
	ends time.Time
	uses int
}

// leaseUses bounds the keys of a lease: etcd deletes all of them in one go.
const leaseUses = 1000

// get returns a lease that lasts for at least ttl.
func (l *leases) get(ctx context.Context, s server, ttl time.Duration) (int64, error) {
	l.mu.Lock()
	if l.byTTL == nil {
		l.byTTL = map[time.Duration]*sharedLease{}
	}
	one := l.byTTL[ttl]
	if one == nil {
		one = &sharedLease{}
		l.byTTL[ttl] = one
	}
	l.mu.Unlock()

	one.mu.Lock()
	defer one.mu.Unlock()
	now := time.Now()
	if one.id != 0 && one.uses < leaseUses && now.Add(ttl).Before(one.ends) {
		one.uses++
		return one.id, nil
	}
	seconds := int64((ttl + min(ttl/20, 3*time.Minute) + 2*time.Second - 1) / time.Second)
	resp, err := s.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: seconds})
	if err != nil {
		return 0, err
	}
	one.id, one.ends, one.uses = resp.ID, now.Add(time.Duration(seconds)*time.Second), 1
	return one.id, nil
}

// forget all leases, because one of them turned out not to be there.
func (l *leases) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byTTL = nil
}
