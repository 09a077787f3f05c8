package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"sigs.k8s.io/knftables"
)

// Config says what the node's table is for.
type Config struct {
	// Cluster names the table: several clusters may share a host. Their service
	// and node port ranges must not overlap, as any address can lead to one
	// place only.
	Cluster string
	Node    Node
	// PodCIDRs are the cluster's: traffic to a cluster IP from elsewhere is
	// masqueraded. Empty = never.
	PodCIDRs []netip.Prefix
	// ServiceCIDRs are refused where no Service answers.
	ServiceCIDRs []netip.Prefix
	// Localhost opens NodePorts and host ports on 127.0.0.1 too. It sets
	// route_localnet and keeps packets for 127.0.0.0/8 from outside away.
	Localhost bool
	// Local are Services ("kube-system/kube-dns") that this process answers
	// itself: all their ports lead there, whatever their endpoints.
	Local map[string]netip.AddrPort
	// HealthHost is the address health check node ports listen on, "" = all.
	HealthHost string

	NFT knftables.Interface // nil = the real one, for TableName(Cluster)
	Log *slog.Logger
}

// TableName of a cluster's inet table.
func TableName(cluster string) string { return "proa-" + cluster }

// Owner names who wants a plan: "service NS/NAME" or "pod NS/NAME".
type Owner string

// Proxy is the driver of the node's table. It is safe for concurrent use.
type Proxy struct {
	cfg    Config
	nft    knftables.Interface
	log    *slog.Logger
	health *healthServer

	mu     sync.Mutex
	synced bool // the table holds exactly what claims say
	plans  map[Owner]Plan
	claims map[itemKey][]claim // by owner; the first one counts, so all of a frontend is of one owner, on every node the same
	chains map[strategy]bool
}

type claim struct {
	owner Owner
	item  item
}

// New makes the driver. Nothing is changed before Set.
func New(cfg Config) (*Proxy, error) {
	nft := cfg.NFT
	if nft == nil {
		var err error
		if nft, err = knftables.New(knftables.InetFamily, TableName(cfg.Cluster)); err != nil {
			return nil, fmt.Errorf("service proxy: nftables cannot be used: %w (install the nftables package, run as root)", err)
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	p := &Proxy{cfg: cfg, nft: nft, log: cfg.Log, health: newHealthServer(cfg.HealthHost, cfg.Log)}
	p.forget()
	return p, nil
}

func (p *Proxy) forget() {
	p.synced, p.plans, p.claims, p.chains = false, map[Owner]Plan{}, map[itemKey][]claim{}, map[strategy]bool{}
}

// Set makes the table hold desired and nothing else, in one transaction. The
// first call adopts a table that is already there, corrects it and keeps what
// clients' affinity it remembers; later calls write only the difference.
func (p *Proxy) Set(ctx context.Context, desired map[Owner]Plan) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	changes := make(map[Owner]Plan, len(desired))
	maps.Copy(changes, desired)
	for o := range p.plans {
		if _, stays := desired[o]; !stays {
			changes[o] = Plan{}
		}
	}
	return p.apply(ctx, changes)
}

// Apply puts in place the plans of the owners given; an empty plan removes
// what the owner had. It costs as much as those plans are big. After an error
// the next call rewrites the table.
func (p *Proxy) Apply(ctx context.Context, changes map[Owner]Plan) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.apply(ctx, changes)
}

func (p *Proxy) apply(ctx context.Context, changes map[Owner]Plan) error {
	before := map[itemKey]*string{} // what was in force of the items touched, nil = nothing
	var udp []Frontend
	for _, o := range slices.Sorted(maps.Keys(changes)) {
		old, plan := p.plans[o], changes[o]
		udp = append(udp, datagram(old.Frontends)...)
		udp = append(udp, datagram(plan.Frontends)...)
		p.claim(o, render(old), render(plan), before)
		if plan.empty() {
			delete(p.plans, o)
		} else {
			p.plans[o] = plan
		}
		p.health.set(o, plan.HealthPort, plan.LocalReady)
	}
	var err error
	if p.synced {
		err = p.writeDifference(ctx, before)
	} else {
		err = p.rewrite(ctx)
	}
	if p.synced = err == nil; err != nil {
		return fmt.Errorf("service proxy: table %s: %w", TableName(p.cfg.Cluster), err)
	}
	if len(udp) > 0 {
		if err := p.dropStaleUDP(udp); err != nil {
			p.log.Warn("stale UDP connections were not cut", "error", err)
		}
	}
	return nil
}

// Restore writes the table anew if somebody has removed it.
func (p *Proxy) Restore(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if chains, err := p.nft.List(ctx, "chains"); p.synced && err == nil && len(chains) > 0 {
		return nil
	}
	p.log.Warn("the service table was removed by somebody and is written anew", "table", TableName(p.cfg.Cluster))
	p.synced = false
	return p.apply(ctx, nil)
}

// claim replaces what o wants, and remembers in before what was in force.
func (p *Proxy) claim(o Owner, old, now []item, before map[itemKey]*string) {
	touch := func(k itemKey) {
		if _, seen := before[k]; seen {
			return
		}
		if c := p.claims[k]; len(c) > 0 {
			before[k] = &c[0].item.value
		} else {
			before[k] = nil
		}
	}
	stays := make(map[itemKey]bool, len(now))
	for _, it := range now {
		touch(it.key)
		stays[it.key] = true
		c := p.claims[it.key]
		if i := slices.IndexFunc(c, func(c claim) bool { return c.owner == o }); i >= 0 {
			c = slices.Clone(c) // before may point into it
			c[i].item = it
			p.claims[it.key] = c
		} else {
			at, _ := slices.BinarySearchFunc(c, o, func(c claim, o Owner) int { return strings.Compare(string(c.owner), string(o)) })
			p.claims[it.key] = slices.Insert(slices.Clone(c), at, claim{o, it})
		}
	}
	for _, it := range old {
		if stays[it.key] {
			continue
		}
		touch(it.key)
		left := slices.DeleteFunc(slices.Clone(p.claims[it.key]), func(c claim) bool { return c.owner == o })
		if p.claims[it.key] = left; len(left) == 0 {
			delete(p.claims, it.key)
		}
	}
}

// writeDifference writes the touched items that are not what they were.
func (p *Proxy) writeDifference(ctx context.Context, before map[itemKey]*string) error {
	tx := p.nft.NewTransaction()
	keys := slices.SortedFunc(maps.Keys(before), func(a, b itemKey) int {
		return strings.Compare(a.in+" "+a.key, b.in+" "+b.key)
	})
	var add []item
	for _, k := range keys {
		was, now := before[k], p.claims[k]
		if was == nil && len(now) == 0 || was != nil && len(now) > 0 && *was == now[0].item.value {
			continue
		}
		if was != nil {
			tx.Delete(element(item{key: k, value: *was}))
		}
		if len(now) > 0 {
			add = append(add, now[0].item)
		}
	}
	for _, it := range add {
		p.addChain(tx, it.via)
	}
	for _, it := range add {
		tx.Add(element(it))
	}
	if tx.NumOperations() == 0 {
		return nil
	}
	return p.nft.Run(ctx, tx)
}

// addChain adds a strategy's chain, once.
func (p *Proxy) addChain(tx *knftables.Transaction, s *strategy) {
	if s == nil || p.chains[*s] {
		return
	}
	p.chains[*s] = true
	if s.split > 0 {
		inside := s.insideOf()
		p.addChain(tx, &inside)
	}
	tx.Add(&knftables.Chain{Name: s.name()})
	tx.Flush(&knftables.Chain{Name: s.name()})
	for _, r := range s.rules() {
		tx.Add(&knftables.Rule{Chain: s.name(), Rule: r})
	}
}

// rewrite makes the whole table anew in one transaction, so that no packet
// ever meets half of it.
func (p *Proxy) rewrite(ctx context.Context) error {
	if p.cfg.Localhost {
		if err := os.WriteFile(routeLocalnet, []byte("1"), 0o644); err != nil {
			p.log.Warn("NodePorts will not answer on 127.0.0.1", "error", err)
		}
	}
	there, err := p.nft.ListAll(ctx)
	if err != nil && !knftables.IsNotFound(err) {
		return err
	}
	err = p.nft.Run(ctx, p.whole(there))
	if err != nil && len(there) > 0 {
		// A table of another version: its sets may be of another type.
		p.log.Warn("the service table could not be adopted and is made anew", "error", err)
		tx := p.nft.NewTransaction()
		tx.Add(&knftables.Table{})
		tx.Delete(&knftables.Table{})
		if err := p.nft.Run(ctx, tx); err != nil {
			return err
		}
		err = p.nft.Run(ctx, p.whole(nil))
	}
	return err
}

// whole is the transaction for everything; there is what the table has.
func (p *Proxy) whole(there map[string][]string) *knftables.Transaction {
	tx := p.nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("services of cluster " + p.cfg.Cluster)})
	p.chains = map[strategy]bool{}
	sets := allCollections()
	for _, c := range sets {
		tx.Add(c.object())
		if !c.dynamic {
			tx.Flush(c.object())
		}
	}
	old := slices.Sorted(slices.Values(there["chain"]))
	for _, name := range old {
		tx.Flush(&knftables.Chain{Name: name})
	}
	wanted := map[string]bool{}
	static := chains(p.cfg)
	for _, c := range static {
		wanted[c.name] = true
		ch := &knftables.Chain{Name: c.name}
		if c.typ != "" {
			ch.Type, ch.Hook, ch.Priority = &c.typ, &c.hook, &c.prio
		}
		tx.Add(ch)
		tx.Flush(&knftables.Chain{Name: c.name})
	}
	for _, c := range static {
		for _, r := range c.rules {
			tx.Add(&knftables.Rule{Chain: c.name, Rule: r})
		}
	}
	items := p.nets()
	for _, k := range slices.SortedFunc(maps.Keys(p.claims), func(a, b itemKey) int {
		return strings.Compare(a.in+" "+a.key, b.in+" "+b.key)
	}) {
		items = append(items, p.claims[k][0].item)
	}
	for _, it := range items {
		p.addChain(tx, it.via)
	}
	for _, it := range items {
		tx.Add(element(it))
	}
	for s := range p.chains {
		wanted[s.name()] = true
	}
	for _, name := range old {
		if !wanted[name] {
			tx.Delete(&knftables.Chain{Name: name})
		}
	}
	return tx
}

func (p *Proxy) nets() []item {
	var out []item
	for in, nets := range map[string][]netip.Prefix{"podnets": p.cfg.PodCIDRs, "servicenets": p.cfg.ServiceCIDRs} {
		for _, n := range nets {
			out = append(out, item{key: itemKey{in + suffix(n.Addr().Is6()), n.String()}})
		}
	}
	slices.SortFunc(out, func(a, b item) int { return strings.Compare(a.key.in+a.key.key, b.key.in+b.key.key) })
	return out
}

// Down removes the table and stops the health check servers.
func (p *Proxy) Down(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
	p.health.close()
	there, _ := p.nft.List(ctx, "chains") // no table: nothing to undo
	tx := p.nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	if err := p.nft.Run(ctx, tx); err != nil {
		return err
	}
	if slices.Contains(there, guardChain) {
		return closeLocalhost(ctx)
	}
	return nil
}

const routeLocalnet = "/proc/sys/net/ipv4/conf/all/route_localnet"

// closeLocalhost takes back route_localnet, which without the guard would let
// neighbours of the host in, unless another cluster's table has a guard.
func closeLocalhost(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "nft", "list", "chains", "inet").Output()
	if err != nil || strings.Contains(string(out), "chain "+guardChain) {
		return err
	}
	return os.WriteFile(routeLocalnet, []byte("0"), 0o644)
}

// Close stops the health check servers. The table stays and goes on serving.
func (p *Proxy) Close() { p.health.close() }

func (p Plan) empty() bool {
	return len(p.Frontends) == 0 && len(p.HostPorts) == 0 && len(p.Hairpin) == 0 && p.HealthPort == 0
}

func (c collection) object() knftables.Object {
	var size *uint64
	if c.dynamic {
		size = knftables.PtrTo(uint64(1 << 18))
	}
	if c.value == "" {
		return &knftables.Set{Name: c.name, Type: c.keys, Flags: c.flags, Size: size}
	}
	return &knftables.Map{Name: c.name, Type: c.keys + " : " + c.value, Flags: c.flags, Size: size}
}

func element(it item) *knftables.Element {
	e := &knftables.Element{Key: strings.Split(it.key.key, " . ")}
	if it.value == "" {
		e.Set = it.key.in
	} else {
		e.Map, e.Value = it.key.in, strings.Split(it.value, " . ")
	}
	return e
}
