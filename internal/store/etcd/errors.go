package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/proa-dev/proa/internal/store"
)

// failure says in the store's words what etcd says, in process or by gRPC.
func failure(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	remote := rpctypes.Error(err)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, mvcc.ErrCompacted), errors.Is(remote, rpctypes.ErrCompacted):
		return store.ErrCompacted
	case errors.Is(err, mvcc.ErrFutureRev), errors.Is(remote, rpctypes.ErrFutureRev):
		return store.ErrFuture
	case errors.Is(err, etcderrors.ErrRequestTooLarge), errors.Is(remote, rpctypes.ErrRequestTooLarge),
		errors.Is(remote, rpctypes.ErrTooManyOps), isMessageTooLarge(err):
		return fmt.Errorf("%w: %w", store.ErrTooLarge, err)
	case errors.Is(err, etcderrors.ErrNoSpace), errors.Is(remote, rpctypes.ErrNoSpace):
		return fmt.Errorf("%w: etcd's quota is used up: %w", store.ErrFull, err)
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrFull):
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// isMessageTooLarge: gRPC itself refuses a message above its limit, without any
// error of etcd's own.
func isMessageTooLarge(err error) bool {
	s, ok := status.FromError(err)
	return ok && s.Code() == codes.ResourceExhausted && !errors.Is(rpctypes.Error(err), rpctypes.ErrNoSpace) &&
		!errors.Is(rpctypes.Error(err), rpctypes.ErrTooManyRequests)
}

func isLeaseGone(err error) bool {
	return err != nil && (errors.Is(err, lease.ErrLeaseNotFound) || errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound))
}
