package proxy

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// item is one element of a collection.
type item struct {
	key   itemKey
	value string    // "" in a set
	via   *strategy // the chain that value goes to
}

// itemKey is the collection and the element's key, its parts joined by " . ".
type itemKey struct{ in, key string }

// render lists the elements a plan needs.
func render(plan Plan) []item {
	var out []item
	for _, ip := range plan.Hairpin {
		out = append(out, item{key: itemKey{"hairpin" + suffix(ip.Is6()), dots(ip, ip)}})
	}
	for i := range plan.Frontends {
		out = append(out, plan.Frontends[i].render()...)
	}
	for _, h := range plan.HostPorts {
		key := itemKey{"hostports" + suffix(h.To.Addr().Is6()), dots(proto(h.Protocol), h.Port)}
		if h.Addr.IsValid() {
			key = itemKey{"hostaddrs" + suffix(h.Addr.Is6()), dots(h.Addr, key.key)}
		}
		out = append(out, item{key: key, value: dots(h.To.Addr(), h.To.Port())})
	}
	return out
}

func (f *Frontend) render() []item {
	sfx, at := suffix(f.IPv6), dots(proto(f.Protocol), f.Port)
	node := !f.Addr.IsValid()
	services, slots, picks, refused := "nodeports", "nodeslots", "nodepicks", "refusednode"
	if !node {
		at = dots(f.Addr, at)
		services, slots, picks, refused = "services", "slots", "picks", "refused"
	}
	var out []item
	if f.Sources != nil {
		out = append(out, item{key: itemKey{"guarded" + sfx, at}})
		for _, p := range f.Sources {
			out = append(out, item{key: itemKey{"sources" + sfx, dots(at, p)}})
		}
	}
	pool, inside := limit(f.Endpoints), limit(f.Inside)
	if len(pool) == 0 && !(f.Split && len(inside) > 0) {
		if f.Drop {
			return append(out, item{key: itemKey{services + sfx, at}, value: "drop"})
		}
		return append(out, item{key: itemKey{refused + sfx, at}})
	}
	s := strategy{v6: f.IPv6, node: node, masquerade: f.Masquerade, n: len(pool), sticky: int(f.Sticky.Seconds())}
	if f.Split {
		s.split = len(inside)
	}
	out = append(out, item{key: itemKey{services + sfx, at}, value: "goto " + s.name(), via: &s})
	pools := []struct {
		flags int
		to    []netip.AddrPort
	}{{s.flags(), pool}}
	if s.split > 0 {
		pools = append(pools, pools[0])
		pools[1].flags, pools[1].to = s.insideOf().flags(), inside
	}
	for _, p := range pools {
		ids := map[int]bool{}
		for i, to := range p.to {
			m := p.flags + i
			if s.remembers() {
				id := lastingID(to, ids)
				out = append(out, item{key: itemKey{picks + sfx, dots(at, hex(m))}, value: hex(mark(p.flags|markSticky, id))})
				m = mark(p.flags|markSticky, id)
			}
			out = append(out, item{key: itemKey{slots + sfx, dots(at, hex(m))}, value: dots(to.Addr(), to.Port())})
		}
	}
	return out
}

// lastingID numbers an endpoint so that the number outlives other endpoints and restarts.
func lastingID(to netip.AddrPort, taken map[int]bool) int {
	h := fnv.New32a()
	h.Write([]byte(to.String()))
	id := int(h.Sum32() & (1<<24 - 1))
	for taken[id] {
		id = (id + 1) & (1<<24 - 1)
	}
	taken[id] = true
	return id
}

func limit(all []netip.AddrPort) []netip.AddrPort { return all[:min(len(all), endpointsMax)] }

func hex(m int) string { return fmt.Sprintf("0x%08x", m) }

func proto(p corev1.Protocol) string { return strings.ToLower(string(p)) }

func suffix(v6 bool) string {
	if v6 {
		return "6"
	}
	return "4"
}

func dots(parts ...any) string {
	s := make([]string, len(parts))
	for i, p := range parts {
		s[i] = fmt.Sprint(p)
	}
	return strings.Join(s, " . ")
}
