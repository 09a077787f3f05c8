package node

import (
	"context"
	"time"

	coordv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/client"
)

const (
	leaseSeconds = 40
	renewEvery   = 10 * time.Second
)

// Beat renews the node's lease until ctx ends. uid is the node object's.
func Beat(ctx context.Context, conn client.Conn, name string, uid func() types.UID, failed func(error)) error {
	leases := client.For[*coordv1.Lease](conn)
	var last *coordv1.Lease
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		now := metav1.NowMicro()
		var err error
		if last == nil {
			last, err = leases.Get(ctx, v1.NamespaceNodeLease, name)
		}
		switch {
		case apierrors.IsNotFound(err):
			last, err = leases.Create(ctx, renewed(&coordv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1.NamespaceNodeLease, Name: name}}, name, uid(), now))
		case err == nil:
			last, err = leases.Update(ctx, renewed(last.DeepCopy(), name, uid(), now))
		}
		if err != nil {
			last = nil
			if ctx.Err() == nil {
				failed(err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func renewed(l *coordv1.Lease, name string, uid types.UID, now metav1.MicroTime) *coordv1.Lease {
	seconds := int32(leaseSeconds)
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = &name, &seconds, &now
	if len(l.OwnerReferences) == 0 && uid != "" {
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: name, UID: uid}}
	}
	return l
}
