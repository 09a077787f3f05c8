package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/proa-dev/proa/test/bench/figure"
	"github.com/proa-dev/proa/test/bench/load"
	"github.com/proa-dev/proa/test/bench/plane"
)

// sizes of the servers that are compared.
func (b *bench) scaleSizes() []struct{ maps, pods int } {
	return []struct{ maps, pods int }{{b.maps / 100, 0}, {b.maps / 10, 0}, {b.maps, b.maps / 2}}
}

const (
	scaleBlocks   = 5
	scaleBlock    = 400 // creations of a block
	scaleChanges  = 1500
	scaleWatches  = 1000
	scaleCrowd    = 10
	scaleSelected = 100
)

// sized is a server with so many objects.
type sized struct {
	load.Scale
	*load.Target
	*plane.Plane
}

// scale measures whether what costs more the more objects there are does not. The
// servers run beside each other and are asked in turn, block by block: so they have
// the same share of the machine and of its disk.
func (b *bench) scale(ctx context.Context) error {
	for _, s := range b.systems {
		if err := b.scaleOf(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

func (b *bench) scaleOf(ctx context.Context, s figure.System) (err error) {
	var all []*sized
	defer func() {
		for _, one := range all {
			one.Close()
			one.Stop()
		}
	}()
	for _, size := range b.scaleSizes() {
		b.say("scale, %s: %s ConfigMaps, %s pods", s, figure.Count(size.maps), figure.Count(size.pods))
		one := &sized{Scale: load.Scale{Maps: size.maps, Pods: size.pods}}
		if one.Plane, err = b.controlAt(ctx, s, "0.0.0.0"); err != nil {
			return err
		}
		all = append(all, one)
		one.CPU = one.used
		if one.Target, err = load.Open(one.Kubeconfig, b.detail); err != nil {
			return err
		}
		if err := one.Fill(ctx, one.Target); err != nil {
			return err
		}
	}
	largest := all[len(all)-1]
	add := b.add("scale", s)
	return errors.Join(
		b.scaleRequests(ctx, all, add), b.scaleSelectors(ctx, largest, add), b.scaleWatches(ctx, largest, add), b.scaleLists(ctx, s, largest, add))
}

func (s *sized) used() time.Duration {
	d, _ := plane.CPU(s.PIDs()...)
	return d
}

// scaleRequests on servers of all sizes in turn.
func (b *bench) scaleRequests(ctx context.Context, all []*sized, add load.Add) error {
	costs := map[*sized]*[3][]load.Cost{}
	for block := range scaleBlocks + 1 {
		for _, s := range all {
			create, get, remove, err := s.Block(ctx, s.Target, scaleBlock)
			if err != nil {
				return err
			}
			if costs[s] == nil {
				costs[s] = &[3][]load.Cost{}
			}
			if block == 0 { // connections, and what is made on first need
				continue
			}
			for i, c := range []load.Cost{create, get, remove} {
				costs[s][i] = append(costs[s][i], c)
			}
		}
	}
	for i, what := range []string{"create", "get", "delete"} {
		for _, s := range all {
			c, among := load.Mean(costs[s][i]), figure.Count(s.Maps+s.Pods)
			add(fmt.Sprintf("%s one of %s objects, latency", what, among), figure.Milliseconds, milliseconds(c.Median))
			add(fmt.Sprintf("%s one of %s objects, CPU", what, among), figure.Microseconds, microseconds(c.CPU))
		}
	}
	return nil
}

func (b *bench) scaleSelectors(ctx context.Context, s *sized, add load.Add) error {
	if _, err := s.Selected(ctx, s.Target, scaleSelected/5); err != nil {
		return err
	}
	c, err := s.Selected(ctx, s.Target, scaleSelected)
	add(fmt.Sprintf("list a thousandth of %s pods by a label, latency", figure.Count(s.Pods)), figure.Milliseconds, milliseconds(c.Median))
	add(fmt.Sprintf("list a thousandth of %s pods by a label, CPU", figure.Count(s.Pods)), figure.Microseconds, microseconds(c.CPU))
	return err
}

// scaleWatches has objects changed while nobody watches, and while many watch
// elsewhere, by turns.
func (b *bench) scaleWatches(ctx context.Context, s *sized, add load.Add) error {
	for _, e := range load.Elsewheres() {
		var costs [2][]load.Cost
		for range scaleBlocks {
			for i, n := range []int{0, scaleWatches} {
				c, err := b.changes(ctx, s, e, n)
				if err != nil {
					return err
				}
				costs[i] = append(costs[i], c)
			}
		}
		for i, n := range []int{0, scaleWatches} {
			add(fmt.Sprintf("a change, %s watches of %s, CPU", figure.Count(n), e.Name), figure.Microseconds, microseconds(load.Mean(costs[i]).CPU))
		}
	}
	return nil
}

func (b *bench) changes(ctx context.Context, s *sized, e load.Elsewhere, watches int) (load.Cost, error) {
	stop, err := e.Watch(ctx, s.Target, watches)
	if err != nil {
		return load.Cost{}, err
	}
	if err := sleep(ctx, time.Second); err != nil { // the handshakes are over
		return load.Cost{}, errors.Join(err, stop())
	}
	c, err := s.Changes(ctx, s.Target, e.Pods(), scaleChanges)
	return c, errors.Join(err, stop())
}

// scaleLists has a crowd list everything at once, each time on a server that has
// just been started, and measures by how much its memory grows.
func (b *bench) scaleLists(ctx context.Context, system figure.System, s *sized, add load.Add) error {
	away, err := addresses()
	if err != nil {
		return err
	}
	defer away()
	for _, f := range load.Forms() {
		if system == figure.Proa {
			if err := s.again(ctx, b); err != nil {
				return err
			}
			add(fmt.Sprintf("ready with %s objects in the store", figure.Count(s.Maps+s.Pods)), figure.Seconds, s.Ready.Seconds())
		}
		if err := sleep(ctx, settle); err != nil {
			return err
		}
		resident, heap, err := s.memory(ctx)
		if err != nil {
			return err
		}
		t := s.Target.From(fromAddress, toAddress)
		defer t.Close()
		own, err := plane.Anonymous(s.PIDs()...)
		if err != nil {
			return err
		}
		most, mostOwn, began, cpu := resident, own, time.Now(), s.used()
		if err := s.Crowd(ctx, t, scaleCrowd, f, func() {
			if mb, err := plane.Memory(s.PIDs()...); err == nil {
				most = max(most, mb)
			}
			if mb, err := plane.Anonymous(s.PIDs()...); err == nil {
				mostOwn = max(mostOwn, mb)
			}
		}); err != nil {
			return err
		}
		after, heapAfter, err := s.memory(ctx)
		if err != nil {
			return err
		}
		b.detail("%d clients list %s objects %s: %.1f s, %.1f s of CPU; resident %.0f MB, at most %.0f, then %.0f; without pages of files %.0f, at most %.0f; heap %.0f MB, then %.0f", scaleCrowd, figure.Count(s.Maps), f.Name,
			time.Since(began).Seconds(), (s.used() - cpu).Seconds(), resident, most, after, own, mostOwn, heap, heapAfter)
		add(fmt.Sprintf("memory that %d lists of %s objects at once add, %s", scaleCrowd, figure.Count(s.Maps), f.Name), figure.Megabytes, most-resident)
		add(fmt.Sprintf("the same without pages of files, %s", f.Name), figure.Megabytes, mostOwn-own)
	}
	return nil
}

func (s *sized) again(ctx context.Context, b *bench) (err error) {
	s.Close()
	if err := s.Plane.Again(ctx); err != nil {
		return err
	}
	s.Target, err = load.Open(s.Kubeconfig, b.detail)
	return err
}

// memory that is resident, and of the Go heap in use, of the API server, in MB.
func (s *sized) memory(ctx context.Context) (resident, heap float64, err error) {
	text, err := s.Metrics(ctx)
	if err != nil {
		return 0, 0, err
	}
	if heap, err = plane.Metric(text, "go_memstats_heap_inuse_bytes"); err != nil {
		return 0, 0, err
	}
	resident, err = plane.Memory(s.PIDs()...)
	return resident, heap / 1e6, err
}

// Addresses of the machine for the time of the lists, of those that are for
// benchmarks (RFC 2544): a client at a loopback address gets nothing compressed.
const fromAddress, toAddress = "198.18.0.1", "198.18.0.2"

func addresses() (away func(), err error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	var added []*netlink.Addr
	away = func() {
		for _, a := range added {
			_ = netlink.AddrDel(lo, a)
		}
	}
	for _, text := range []string{fromAddress, toAddress} {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(text), Mask: net.CIDRMask(32, 32)}}
		if err := netlink.AddrReplace(lo, a); err != nil {
			away()
			return nil, fmt.Errorf("%s on lo: %w", text, err)
		}
		added = append(added, a)
	}
	return away, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
