package verbs

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/cache"
)

// token says where a list that was cut goes on: at a revision, from a key.
// It is written as upstream writes it.
type token struct {
	APIVersion      string `json:"v"`
	ResourceVersion int64  `json:"rv"` // -1 = whatever is there now
	Start           string `json:"start"`
}

// tokenVersion of what is in a token.
const tokenVersion = "meta.k8s.io/v1"

func (t token) String() string {
	t.APIVersion = tokenVersion
	raw, _ := json.Marshal(t)
	return base64.RawURLEncoding.EncodeToString(raw)
}

func parseToken(text string) (token, error) {
	bad := func(why string, args ...any) (token, error) {
		return token{}, apierrors.NewBadRequest("invalid continue token: continue key is not valid: " + fmt.Sprintf(why, args...))
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return bad("%v", err)
	}
	var t token
	if err := json.Unmarshal(raw, &t); err != nil {
		return bad("%v", err)
	}
	switch {
	case t.APIVersion != tokenVersion:
		return bad("server does not recognize this encoded version %s", t.APIVersion)
	case t.ResourceVersion == 0:
		return bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
	case t.Start == "":
		return bad("encoded start key empty (version meta.k8s.io/v1)")
	}
	return t, nil
}

// after is the start of what follows an object in key order.
func after(k *api.Kind, obj api.Object) string {
	if k.Cluster {
		return obj.GetName() + "\x00"
	}
	return obj.GetNamespace() + "/" + obj.GetName() + "\x00"
}

// split a start key.
func split(k *api.Kind, start string) (namespace, name string) {
	start = strings.TrimPrefix(start, "/")
	if k.Cluster {
		return "", start
	}
	namespace, name, _ = strings.Cut(start, "/")
	return namespace, name
}

// pins keep the last snapshots that lists in pages stand on, so that the next
// page needs no read from the store. They are few and do not last, for a
// snapshot holds on to what has been overwritten since.
type pins struct {
	mu   sync.Mutex
	list []*pin
}

type pin struct {
	prefix   string
	revision int64
	snapshot cache.Snapshot

	mu    sync.Mutex
	after map[place]int64 // how many objects there are before where a page begins
}

// place where a page begins, in a list of a namespace ("" = all).
type place struct{ namespace, start string }

// maxPins of lists in pages at the same time; more go to the store.
const maxPins = 8

// pinFor is how long the next page is expected. A list that takes longer is read
// from the store as long as that remembers.
const pinFor = time.Minute

func (p *pins) put(k *api.Kind, revision int64, s cache.Snapshot) *pin {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.find(k, revision); one != nil {
		return one
	}
	if len(p.list) == maxPins {
		p.list = append(p.list[:0], p.list[1:]...)
	}
	one := &pin{prefix: k.Prefix(), revision: revision, snapshot: s, after: map[place]int64{}}
	p.list = append(p.list, one)
	time.AfterFunc(pinFor, func() { p.drop(one) })
	return one
}

func (p *pins) drop(one *pin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = slices.DeleteFunc(p.list, func(other *pin) bool { return one == other })
}

func (p *pins) get(k *api.Kind, revision int64) cache.Snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.find(k, revision); one != nil {
		return one.snapshot
	}
	return nil
}

// find a pin; mu is held.
func (p *pins) find(k *api.Kind, revision int64) *pin {
	for _, one := range p.list {
		if one.revision == revision && one.prefix == k.Prefix() {
			return one
		}
	}
	return nil
}

// remaining is how many objects come after a page that began at a start: known
// without counting, if the page before was asked for here, too.
func (p *pin) remaining(k *api.Kind, namespace, start string, page *List) *int64 {
	next, err := parseToken(page.Continue)
	if err != nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before, known := p.after[place{namespace, start}]
	if known || start == "" {
		before += int64(len(page.Items))
		p.after[place{namespace, next.Start}] = before
		n := int64(p.snapshot.Count(namespace)) - before
		return &n
	}
	ns, name := split(k, next.Start)
	var n int64
	p.snapshot.Ascend(namespace, ns, name, func(*cache.Item) bool { n++; return true })
	p.after[place{namespace, next.Start}] = int64(p.snapshot.Count(namespace)) - n
	return &n
}
