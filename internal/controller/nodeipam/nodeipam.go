// Package nodeipam gives every node a range of addresses for its pods
// (spec.podCIDR), out of the cluster's range, and never the same to two.
package nodeipam

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Config of the address ranges: one for each IP family.
type Config struct {
	ClusterCIDRs []netip.Prefix
	MaskSize4    int // of a node's range; 0 = 24
	MaskSize6    int // 0 = 64
}

// Controller of node ranges.
type Controller struct {
	cfg    Config
	queue  *loop.Queue
	nodes  *client.Informer[*corev1.Node]
	write  client.Client[*corev1.Node]
	record *event.Recorder
	log    *slog.Logger
}

// New controller.
func New(in *client.Informers, cfg Config, log *slog.Logger) *Controller {
	if cfg.MaskSize4 == 0 {
		cfg.MaskSize4 = 24
	}
	if cfg.MaskSize6 == 0 {
		cfg.MaskSize6 = 64
	}
	c := &Controller{
		cfg: cfg, queue: loop.NewQueue("nodeipam", log),
		nodes:  client.Shared[*corev1.Node](in, client.Scope{}),
		write:  client.For[*corev1.Node](in.Conn()),
		record: event.New(in.Conn(), "cidrAllocator", "", log),
		log:    log.With("controller", "nodeipam"),
	}
	c.nodes.OnChange(func(old, now *corev1.Node) {
		switch {
		case now != nil && len(now.Spec.PodCIDRs) == 0:
			c.queue.Add(now.Name)
		case now == nil: // its range is free: somebody may wait for one
			for _, n := range c.nodes.List("", nil) {
				if len(n.Spec.PodCIDRs) == 0 {
					c.queue.Add(n.Name)
				}
			}
		}
	})
	return c
}

// Run implements loop.Controller. One worker, which alone gives ranges away.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	given := map[string][]netip.Prefix{} // what was written and may not have come back yet
	return c.queue.Run(ctx, 1, func(ctx context.Context, name string) (time.Duration, error) {
		return 0, c.reconcile(ctx, name, given)
	}, c.nodes.Synced())
}

func (c *Controller) reconcile(ctx context.Context, name string, given map[string][]netip.Prefix) error {
	node, ok := c.nodes.Get("", name)
	if !ok {
		delete(given, name)
		return nil
	}
	if len(node.Spec.PodCIDRs) > 0 {
		return nil
	}
	taken := taken(c.nodes.List("", nil), given)
	ranges := given[name] // again, if it may have been written although there was an error
	for _, cluster := range c.cfg.ClusterCIDRs[len(ranges):] {
		size := c.cfg.MaskSize4
		if cluster.Addr().Is6() {
			size = c.cfg.MaskSize6
		}
		r, ok := Free(cluster, size, taken)
		if !ok { // the node comes again when another one goes
			c.record.Warning(event.Ref(c.write.Kind(), node), "CIDRNotAvailable", "Node %s status is now: CIDRNotAvailable", name)
			c.log.Warn("no range is left for the pods of a node: remove nodes, or start the cluster with a larger --cluster-cidr", "node", name, "cluster-cidr", cluster, "size", size)
			return nil
		}
		ranges = append(ranges, r)
	}
	text := make([]string, len(ranges))
	for i, r := range ranges {
		text[i] = r.String()
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": node.UID},
		"spec":     map[string]any{"podCIDR": text[0], "podCIDRs": text},
	})
	if err != nil {
		return err
	}
	given[name] = ranges
	_, err = c.write.Patch(ctx, "", name, client.Patch{Type: types.MergePatchType, Data: patch}, client.WriteOptions{})
	return err
}

func taken(nodes []*corev1.Node, given map[string][]netip.Prefix) map[netip.Prefix]bool {
	all := map[netip.Prefix]bool{}
	there := map[string]bool{}
	for _, n := range nodes {
		there[n.Name] = len(n.Spec.PodCIDRs) == 0
		for _, text := range n.Spec.PodCIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				all[p.Masked()] = true
			}
		}
	}
	for name, ranges := range given {
		if !there[name] { // or it has come back
			delete(given, name)
			continue
		}
		for _, r := range ranges {
			all[r] = true
		}
	}
	return all
}

// Free finds the first range of a size in a larger one that overlaps with none
// that are taken.
func Free(in netip.Prefix, size int, taken map[netip.Prefix]bool) (netip.Prefix, bool) {
	if size < in.Bits() {
		return netip.Prefix{}, false
	}
	var others []netip.Prefix // of other sizes: few, if any
	for t := range taken {
		if t.Bits() != size {
			others = append(others, t)
		}
	}
	for p := netip.PrefixFrom(in.Masked().Addr(), size); in.Contains(p.Addr()); {
		if !taken[p] && !slices.ContainsFunc(others, p.Overlaps) {
			return p, true
		}
		next, ok := following(p)
		if !ok {
			break
		}
		p = next
	}
	return netip.Prefix{}, false
}

// following is the range of the same size behind p.
func following(p netip.Prefix) (netip.Prefix, bool) {
	b := p.Addr().AsSlice()
	for bit := p.Bits() - 1; bit >= 0; bit-- {
		mask := byte(0x80 >> (bit % 8))
		b[bit/8] ^= mask
		if b[bit/8]&mask != 0 { // no carry
			a, _ := netip.AddrFromSlice(b)
			return netip.PrefixFrom(a, p.Bits()), true
		}
	}
	return netip.Prefix{}, false
}
