package allocate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

var (
	errFull      = errors.New("range is full")
	errIPTaken   = errors.New("provided IP is already allocated")
	errPortTaken = errors.New("provided port is already allocated")
)

// ipRange is a service range of one family.
type ipRange struct {
	prefix netip.Prefix
	family corev1.IPFamily
	size   uint64 // of the addresses that can be given: without network and broadcast
}

// maxSize of a range that is used, as upstream: wider prefixes are used in part.
const maxBits = 16 + 4

func newRange(p netip.Prefix) (ipRange, error) {
	p = p.Masked()
	r := ipRange{prefix: p, family: corev1.IPv4Protocol}
	bits := 32 - p.Bits()
	if p.Addr().Is6() {
		r.family, bits = corev1.IPv6Protocol, 128-p.Bits()
	}
	if !p.IsValid() || bits < 2 {
		return r, fmt.Errorf("the service range %v is too small", p)
	}
	if bits > maxBits && r.family == corev1.IPv6Protocol {
		bits = maxBits
	}
	r.size = 1<<bits - 1 // without the network's own address
	if r.family == corev1.IPv4Protocol {
		r.size-- // nor broadcast
	}
	return r, nil
}

func (s *Services) rangeOf(f corev1.IPFamily) *ipRange {
	for i := range s.ranges {
		if s.ranges[i].family == f {
			return &s.ranges[i]
		}
	}
	return nil
}

// at is the n-th address that can be given, from 0.
func (r *ipRange) at(n uint64) netip.Addr {
	n++
	if r.family == corev1.IPv4Protocol {
		b := r.prefix.Addr().As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
		return netip.AddrFrom4(b)
	}
	b := r.prefix.Addr().As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+n)
	return netip.AddrFrom16(b)
}

// holds says whether an address is one that can be given.
func (r *ipRange) holds(ip netip.Addr) bool {
	return r.prefix.Contains(ip) && ip != r.prefix.Addr() && (r.family == corev1.IPv6Protocol || ip != r.at(r.size))
}

// pick a free address at random. The first addresses of the range are left to
// those who ask for one by number as long as there are others (KEP-3070).
func (r *ipRange) pick(free func(netip.Addr) bool) (netip.Addr, bool) {
	static := min(max(16, r.size/16), 256)
	if r.size < 16 {
		static = 0
	}
	for _, band := range [][2]uint64{{static, r.size}, {0, static}} {
		size := band[1] - band[0]
		if size == 0 {
			continue
		}
		start := rand.Uint64N(size)
		for i := range size {
			if ip := r.at(band[0] + (start+i)%size); free(ip) {
				return ip, true
			}
		}
	}
	return netip.Addr{}, false
}
