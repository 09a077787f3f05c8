package etcd

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
)

// AddMember lets another server join, before it is started with Member.Join. A
// cluster takes a new member only while all that it has are there and have been
// for some seconds; AddMember waits for that until ctx ends, half a minute at most.
func (e *Embedded) AddMember(ctx context.Context, peers ...string) (MemberInfo, error) {
	urls, err := peerURLs(peers)
	if err != nil {
		return MemberInfo{}, err
	}
	now := time.Now()
	m := membership.NewMember("", urls, "", &now)
	limit, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		_, err := e.server.AddMember(limit, *m)
		switch {
		case err == nil:
			return MemberInfo{uint64(m.ID), "", peers}, nil
		case !errors.Is(err, etcderrors.ErrUnhealthy) && !errors.Is(err, etcderrors.ErrNotEnoughStartedMembers):
			return MemberInfo{}, failure(ctx, err)
		}
		select {
		case <-limit.Done():
			return MemberInfo{}, failure(ctx, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// RemoveMember takes a server out of the cluster.
func (e *Embedded) RemoveMember(ctx context.Context, id uint64) error {
	_, err := e.server.RemoveMember(ctx, id)
	return failure(ctx, err)
}

// announce makes the cluster know the URLs that this member is configured with:
// one that was alone so far had none worth telling.
func (s *embedded) announce(ctx context.Context, peers []string) error {
	me := s.Cluster().Member(s.MemberID())
	if me == nil || slices.Equal(slices.Sorted(slices.Values(me.PeerURLs)), slices.Sorted(slices.Values(peers))) {
		return nil
	}
	me.PeerURLs = peers
	_, err := s.UpdateMember(ctx, *me)
	return err
}
