package proxy

import (
	"fmt"
	"net/netip"

	"sigs.k8s.io/knftables"
)

// Packet marks of the first packet of a connection to a frontend: the number of
// the endpoint that was drawn, and flags. They live from the dstnat hook to
// postrouting. markMasquerade is the bit kube-proxy uses too.
const (
	markMasquerade = 1 << 14
	markTag        = 1 << 29 // set by us
	markInside     = 1 << 28 // the number is of Frontend.Inside
	markSticky     = 1 << 27 // the number is an endpoint's lasting id, not its position
	markIDs        = 1 << 12 // positions lie below bit 12, or, shifted over bit 14, above it
)

// mark numbers endpoint i, leaving bit 14 free for markMasquerade.
func mark(flags, i int) int { return flags | i&(markIDs-1) | (i>>12)<<15 }

// endpointsMax is how many endpoints of one frontend are used: numgen counts
// without a gap, so positions have the bits below markMasquerade.
const endpointsMax = markMasquerade

// collection is a set or a map of the table.
type collection struct {
	name, keys, value string // value "" = a set
	flags             []knftables.SetFlag
	dynamic           bool // filled by packets, kept over a restart
}

// collections of one family; addr is its address type.
func collections(suffix, addr string) []collection {
	port := "inet_proto . inet_service"
	to := addr + " . inet_service"
	interval := []knftables.SetFlag{knftables.IntervalFlag}
	dynamic := []knftables.SetFlag{knftables.DynamicFlag, knftables.TimeoutFlag}
	all := []collection{
		{name: "podnets" + suffix, keys: addr, flags: interval},
		{name: "servicenets" + suffix, keys: addr, flags: interval},
		{name: "hairpin" + suffix, keys: addr + " . " + addr},
		{name: "services" + suffix, keys: addr + " . " + port, value: "verdict"},
		{name: "nodeports" + suffix, keys: port, value: "verdict"},
		{name: "slots" + suffix, keys: addr + " . " + port + " . mark", value: to},
		{name: "nodeslots" + suffix, keys: port + " . mark", value: to},
		{name: "hostports" + suffix, keys: port, value: to},
		{name: "hostaddrs" + suffix, keys: addr + " . " + port, value: to},
		{name: "guarded" + suffix, keys: addr + " . " + port},
		{name: "sources" + suffix, keys: addr + " . " + port + " . " + addr, flags: interval},
		{name: "refused" + suffix, keys: addr + " . " + port},
		{name: "refusednode" + suffix, keys: port},
	}
	if suffix == "6" {
		return all // see strategy.hashed
	}
	return append(all, []collection{
		{name: "picks" + suffix, keys: addr + " . " + port + " . mark", value: "mark"},
		{name: "nodepicks" + suffix, keys: port + " . mark", value: "mark"},
		{name: "affinity" + suffix, keys: addr + " . " + addr + " . " + port, value: "mark", flags: dynamic, dynamic: true},
		{name: "nodeaffinity" + suffix, keys: addr + " . " + port, value: "mark", flags: dynamic, dynamic: true},
	}...)
}

func allCollections() []collection {
	return append(collections("4", "ipv4_addr"), collections("6", "ipv6_addr")...)
}

// chain is a base chain (typ set) or a regular one, with its rules.
type chain struct {
	name  string
	typ   knftables.BaseChainType
	hook  knftables.BaseChainHook
	prio  knftables.BaseChainPriority
	rules []string
}

// guardChain keeps packets for 127.0.0.0/8 from outside away.
const guardChain = "localhost-guard"

const anyPort = "meta l4proto { tcp, udp, sctp }"

// chains are those every node has, callee before caller.
func chains(cfg Config) []chain {
	hook := func(name string, t knftables.BaseChainType, h knftables.BaseChainHook, p knftables.BaseChainPriority, rules ...string) chain {
		return chain{name, t, h, p, rules}
	}
	var services, nodeports, refused, refusedNet, post []string
	out := []chain{{name: "refuse", rules: []string{"meta l4proto tcp reject with tcp reset", "reject with icmpx port-unreachable"}}}
	masq := fmt.Sprintf("0x%x", markMasquerade)
	tag := fmt.Sprintf("0x%x", markTag)
	post = append(post,
		fmt.Sprintf("meta mark & %s == %s meta mark set meta mark & 0x%x masquerade fully-random", masq, masq, ^uint32(markMasquerade)),
		// From localhost (NodePorts and host ports): the loopback address must not leave the node.
		"ct status dnat ip saddr 127.0.0.0/8 masquerade fully-random")
	for _, f := range []struct{ ip, suffix, nf string }{{"ip", "4", "ipv4"}, {"ip6", "6", "ipv6"}} {
		addrKey := f.ip + " daddr . meta l4proto . th dport"
		nodeKey := "meta l4proto . th dport"
		out = append(out,
			chain{name: "dnat" + f.suffix, rules: []string{
				fmt.Sprintf("%s dnat %s to %s . meta mark map @slots%s", anyPort, f.ip, addrKey, f.suffix)}},
			chain{name: "nodednat" + f.suffix, rules: []string{
				fmt.Sprintf("%s dnat %s to %s . meta mark map @nodeslots%s", anyPort, f.ip, nodeKey, f.suffix)}})
		services = append(services,
			fmt.Sprintf("%s @guarded%s %s . %s saddr != @sources%s drop", addrKey, f.suffix, addrKey, f.ip, f.suffix),
			fmt.Sprintf("%s vmap @services%s", addrKey, f.suffix))
		nodeports = append(nodeports,
			fmt.Sprintf("%s dnat %s to %s map @hostaddrs%s", anyPort, f.ip, addrKey, f.suffix),
			fmt.Sprintf("meta nfproto %s %s dnat %s to %s map @hostports%s", f.nf, anyPort, f.ip, nodeKey, f.suffix),
			fmt.Sprintf("meta nfproto %s %s vmap @nodeports%s", f.nf, nodeKey, f.suffix))
		refused = append(refused,
			fmt.Sprintf("%s @refused%s goto refuse", addrKey, f.suffix),
			fmt.Sprintf("meta nfproto %s fib daddr type local %s @refusednode%s goto refuse", f.nf, nodeKey, f.suffix))
		refusedNet = append(refusedNet, fmt.Sprintf("%s daddr @servicenets%s goto refuse", f.ip, f.suffix))
		post = append(post, fmt.Sprintf("ct status dnat %s saddr . %s daddr @hairpin%s masquerade fully-random", f.ip, f.ip, f.suffix))
		if hasFamily(cfg.PodCIDRs, f.ip == "ip6") {
			post = append(post, fmt.Sprintf("ct status dnat ct original %s daddr @servicenets%s %s saddr != @podnets%s fib saddr type != local masquerade fully-random",
				f.ip, f.suffix, f.ip, f.suffix))
		}
	}
	services = append(services, "fib daddr type local jump nodeports")
	// After the choice only markMasquerade is of use; routing must not see the rest.
	tidy := fmt.Sprintf("meta mark & %s == %s meta mark set meta mark & %s", tag, tag, masq)
	out = append(out,
		chain{name: "nodeports", rules: nodeports},
		chain{name: "services", rules: services},
		chain{name: "refused", rules: refused},
		hook("prerouting", knftables.NATType, knftables.PreroutingHook, "dstnat", "jump services"),
		hook("output", knftables.NATType, knftables.OutputHook, "-100", "jump services"),
		hook("postrouting", knftables.NATType, knftables.PostroutingHook, "srcnat", post...),
		hook("prerouting-tidy", knftables.FilterType, knftables.PreroutingHook, "-90", tidy),
		hook("output-tidy", knftables.FilterType, knftables.OutputHook, "-90", tidy),
		hook("filter-input", knftables.FilterType, knftables.InputHook, "filter", "ct state new jump refused"),
		hook("filter-forward", knftables.FilterType, knftables.ForwardHook, "filter", append([]string{"ct state new jump refused"}, refusedNet...)...),
		hook("filter-output", knftables.FilterType, knftables.OutputHook, "filter", append([]string{"ct state new jump refused"}, refusedNet...)...),
	)
	if cfg.Localhost {
		// route_localnet lets packets for 127.0.0.0/8 in from outside: keep them out.
		out = append(out, hook(guardChain, knftables.FilterType, knftables.PreroutingHook, "raw",
			`iifname != "lo" ip daddr 127.0.0.0/8 drop`, `iifname != "lo" ip saddr 127.0.0.0/8 drop`))
	}
	return out
}

func hasFamily(nets []netip.Prefix, v6 bool) bool {
	for _, n := range nets {
		if n.Addr().Is6() == v6 {
			return true
		}
	}
	return false
}

// strategy is how a frontend draws its endpoint; equal ones share a chain.
type strategy struct {
	v6, node   bool // node: NodePorts, keyed without the address
	masquerade bool
	inside     bool // draw from Frontend.Inside
	n          int  // how many there are, 0 = drop
	split      int  // > 0: clients of this node draw from that many Inside
	sticky     int  // seconds, 0 = none
}

func (s strategy) name() string {
	name := "pick"
	if s.node {
		name = "nodepick"
	}
	if s.v6 {
		name += "6"
	} else {
		name += "4"
	}
	if s.masquerade {
		name += "-masq"
	}
	if s.inside {
		name += "-inside"
	}
	name += fmt.Sprintf("-%d", s.n)
	if s.split > 0 {
		name += fmt.Sprintf("-of-%d", s.split)
	}
	if s.sticky > 0 {
		name += fmt.Sprintf("-sticky-%ds", s.sticky)
	}
	return name
}

// insideOf is the strategy for clients of this node.
func (s strategy) insideOf() strategy {
	return strategy{v6: s.v6, node: s.node, inside: true, n: s.split, sticky: s.sticky}
}

// hashed says that a client's endpoint follows from its address alone, with
// nothing remembered: nft up to 1.0.6 fails on maps that packets fill whose key
// is longer than 16 bytes, so IPv6 clients stay for as long as the endpoints do.
func (s strategy) hashed() bool { return s.sticky > 0 && s.v6 }

func (s strategy) remembers() bool { return s.sticky > 0 && !s.v6 }

// flags of the marks of this strategy.
func (s strategy) flags() int {
	f := markTag
	if s.masquerade {
		f |= markMasquerade
	}
	if s.inside {
		f |= markInside
	}
	return f
}

func (s strategy) rules() []string {
	ip, suffix, key, prefix := "ip", "4", "", ""
	if s.v6 {
		ip, suffix = "ip6", "6"
	}
	key = "meta l4proto . th dport"
	if s.node {
		prefix = "node"
	} else {
		key = ip + " daddr . " + key
	}
	var out []string
	if s.split > 0 {
		to := s.insideOf().name()
		out = append(out,
			fmt.Sprintf("%s saddr @podnets%s goto %s", ip, suffix, to),
			fmt.Sprintf("fib saddr type local goto %s", to))
	}
	if s.n == 0 {
		return append(out, "drop")
	}
	client := ip + " saddr . " + key
	affinity := prefix + "affinity" + suffix
	if s.remembers() {
		out = append(out,
			"meta mark set 0x0",
			fmt.Sprintf("meta mark set %s map @%s update @%s { %s timeout %ds : meta mark }", client, affinity, affinity, client, s.sticky),
			fmt.Sprintf("%s dnat %s to %s . meta mark map @%sslots%s", anyPort, ip, key, prefix, suffix),
			// Nothing remembered, or its endpoint is gone.
			fmt.Sprintf("meta mark != 0x0 delete @%s { %s : meta mark }", affinity, client))
	}
	switch {
	case s.n == 1:
		out = append(out, fmt.Sprintf("meta mark set 0x%x", s.flags()))
	case s.hashed():
		out = append(out, fmt.Sprintf("meta mark set jhash %s saddr mod %d offset %d", ip, s.n, s.flags()))
	default:
		out = append(out, fmt.Sprintf("meta mark set numgen random mod %d offset %d", s.n, s.flags()))
	}
	if s.remembers() {
		out = append(out,
			fmt.Sprintf("meta mark set %s . meta mark map @%spicks%s", key, prefix, suffix),
			fmt.Sprintf("update @%s { %s timeout %ds : meta mark }", affinity, client, s.sticky))
	}
	return append(out, fmt.Sprintf("goto %sdnat%s", prefix, suffix))
}
