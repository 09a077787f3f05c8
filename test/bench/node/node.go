// Package node runs the clusters with one node that are compared: "proa up", and
// upstream's control plane with a kubelet and the same containerd.
package node

import (
	"context"
)

// Node is a cluster with one node that runs.
type Node struct {
	Kubeconfig string
	PIDs       []int // of all parts but containerd
	stop       []func(context.Context) error
}

// Stop the cluster and remove what belongs to it.
func (n *Node) Stop(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var first error
	for i := len(n.stop) - 1; i >= 0; i-- {
		if err := n.stop[i](ctx); err != nil && first == nil {
			first = err
		}
	}
	n.stop = nil
	return first
}
