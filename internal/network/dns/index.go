package dns

import (
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// Index holds the records of the cluster by name. Reading takes no longer when
// there are more of them. It is safe for concurrent use.
type Index struct {
	zone  string
	ready chan struct{}

	mu     sync.RWMutex
	owners map[string]Records
	names  map[string]*node
	spaces map[string]bool // namespaces
}

// node is a name: its records, and how many names lie below it (a name with
// none of its own exists nevertheless, RFC 8020).
type node struct {
	records []dns.RR
	below   int
}

// NewIndex of a zone ("cluster.local").
func NewIndex(zone string) *Index {
	return &Index{zone: strings.ToLower(dns.Fqdn(zone)), ready: make(chan struct{}), owners: map[string]Records{}, names: map[string]*node{}, spaces: map[string]bool{}}
}

// Zone of the names, fully qualified.
func (x *Index) Zone() string { return x.zone }

// Set replaces the records of an owner; nil removes them.
func (x *Index) Set(owner string, records Records) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, rr := range x.owners[owner] {
		x.remove(rr)
	}
	if len(records) == 0 {
		delete(x.owners, owner)
		return
	}
	x.owners[owner] = records
	for _, rr := range records {
		x.add(rr)
	}
}

// Complete says that all there is has been Set. Servers begin to answer then:
// before, they would deny names that exist. It may be called again.
func (x *Index) Complete() {
	x.mu.Lock()
	defer x.mu.Unlock()
	select {
	case <-x.ready:
	default:
		close(x.ready)
	}
}

// SetNamespace says whether a namespace exists: its pods have names then.
func (x *Index) SetNamespace(name string, exists bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if exists {
		x.spaces[name] = true
	} else {
		delete(x.spaces, name)
	}
}

func (x *Index) add(rr dns.RR) {
	name := rr.Header().Name
	n := x.names[name]
	if n == nil {
		n = &node{}
		x.names[name] = n
	}
	// Readers hold the old slice: never write into it.
	n.records = append(n.records[:len(n.records):len(n.records)], rr)
	x.ancestors(name, 1)
}

func (x *Index) remove(rr dns.RR) {
	name := rr.Header().Name
	n := x.names[name]
	left := make([]dns.RR, 0, len(n.records))
	for _, r := range n.records {
		if r != rr {
			left = append(left, r)
		}
	}
	n.records = left
	x.ancestors(name, -1)
	if len(left) == 0 && n.below == 0 {
		delete(x.names, name)
	}
}

func (x *Index) ancestors(name string, by int) {
	for {
		i := strings.IndexByte(name, '.')
		if i < 0 || i+1 >= len(name) || name == x.zone {
			return
		}
		name = name[i+1:]
		n := x.names[name]
		if n == nil {
			n = &node{}
			x.names[name] = n
		}
		if n.below += by; n.below == 0 && len(n.records) == 0 {
			delete(x.names, name)
		}
	}
}

// Find the records of a name in lower case; exists is false if there is no such name.
// The slice is shared.
func (x *Index) Find(name string) (records []dns.RR, exists bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if n := x.names[name]; n != nil {
		return n.records, true
	}
	return x.pod(name)
}

// pod answers NAME.NAMESPACE.pod.ZONE, which follows from the name.
func (x *Index) pod(name string) ([]dns.RR, bool) {
	rest, ok := strings.CutSuffix(name, "pod."+x.zone)
	if !ok {
		return nil, false
	}
	if rest == "" {
		return nil, true
	}
	rest = strings.TrimSuffix(rest, ".")
	label, space, two := strings.Cut(rest, ".")
	if !two {
		return nil, x.spaces[label]
	}
	if !x.spaces[space] {
		return nil, false
	}
	ip, ok := podAddress(label)
	if !ok {
		return nil, false
	}
	return []dns.RR{address(name, ip, ttlEndpoint)}, true
}
