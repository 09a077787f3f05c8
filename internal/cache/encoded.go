package cache

import (
	"sync"
	"sync/atomic"

	"github.com/proa-dev/proa/internal/api/wire"
)

// JSONBody is the key under which the JSON of an object in its storage version is
// kept, without apiVersion and kind.
const JSONBody = "json"

// body is one form of an item. It does not lead to the item: what is waiting to be
// dropped keeps no object alive.
type body struct {
	key  string
	form atomic.Pointer[wire.Text] // nil = it was dropped
	used atomic.Bool               // since it was last thought of dropping it
	size int64                     // under the lock of encodings; 0 = not counted
}

// Encoded returns an item's bytes under a key, making them on first need. They stay
// beside the item as long as there is room (see encodings). Two callers may make
// them at the same time; one result is kept.
func (i *Item) Encoded(key string, make func() (wire.Text, error)) (wire.Text, error) {
	b := i.body(key, false)
	if b != nil {
		if e := b.form.Load(); e != nil {
			if !b.used.Load() {
				b.used.Store(true)
			}
			return *e, nil
		}
	}
	e, err := make()
	if err != nil {
		return wire.Text{}, err
	}
	if b == nil {
		b = i.body(key, true)
	}
	if !b.form.CompareAndSwap(nil, &e) {
		if first := b.form.Load(); first != nil {
			return *first, nil
		}
		return e, nil
	}
	if i.kept != nil {
		i.kept.admit(b, int64(cap(e.Bytes)+pieceSize*len(e.Shared)))
	}
	return e, nil
}

// HasEncoded returns the bytes under a key if they are there.
func (i *Item) HasEncoded(key string) (wire.Text, bool) {
	if b := i.body(key, false); b != nil {
		if e := b.form.Load(); e != nil {
			b.used.Store(true)
			return *e, true
		}
	}
	return wire.Text{}, false
}

func (i *Item) body(key string, add bool) *body {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, b := range i.bodies {
		if b.key == key {
			return b
		}
	}
	if !add {
		return nil
	}
	b := &body{key: key}
	i.bodies = append(i.bodies, b)
	return b
}

// Room says whether an encoding of the item would be kept without another being
// dropped for it. Who reads many objects once, and has no use for what it dropped,
// had better make bytes of its own where there is none.
func (i *Item) Room() bool {
	return i.kept == nil || i.kept.used.Load() < i.kept.most()/16*15 // for what is dropped makes room, too
}

// encodings bounds the bytes that are kept beside all objects: to as much as the
// objects take in the store, which is room for the JSON of each (see wire.Text) and
// something over, and in large clusters to encodedMost; those that are asked for go on
// being kept, those that were not since the last look go first. What was replaced by
// another version is kept until so many others were replaced, too: those who watch may
// be about to read it.
type encodings struct {
	least   int64        // bytes that may be kept in any case
	objects atomic.Int64 // bytes that the objects take in the store

	mu      sync.Mutex
	used    atomic.Int64 // written under the lock
	ring    queue[*body] // in the order in which they will be thought of
	retired queue[*Item]
}

const (
	encodedLeast = 16 << 20
	encodedMost  = 24 << 20
	retiredMost  = 1024
	pieceSize    = 32 // of a text's, without the bytes that are shared
)

func (k *encodings) most() int64 { return max(k.least, min(k.objects.Load(), encodedMost)) }

// admit a body that was encoded just now, and drop others if there are too many.
func (k *encodings) admit(b *body, size int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if b.form.Load() == nil { // it was dropped meanwhile
		return
	}
	k.used.Add(size - b.size)
	b.size = size
	k.ring.push(b)
	for most := k.most(); k.used.Load() > most && k.ring.len() > 0; {
		switch first := k.ring.pop(); {
		case first.size == 0:
		case first.used.CompareAndSwap(true, false):
			k.ring.push(first)
		default:
			k.drop(first)
		}
	}
	if k.ring.len() > 1024 && k.ring.len() > 4*int(k.used.Load()/1024) { // most are dropped already
		k.ring.keep(func(b *body) bool { return b.size > 0 })
	}
}

func (k *encodings) drop(b *body) {
	k.used.Add(-b.size)
	b.size = 0
	b.form.Store(nil)
}

// retire an item that was replaced.
func (k *encodings) retire(i *Item) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.retired.push(i)
	if k.retired.len() <= retiredMost {
		return
	}
	old := k.retired.pop()
	old.mu.Lock()
	defer old.mu.Unlock()
	for _, b := range old.bodies {
		k.drop(b)
	}
}

// queue is a list that is taken from its front.
type queue[T any] struct {
	all  []T
	head int
}

func (q *queue[T]) len() int { return len(q.all) - q.head }

func (q *queue[T]) push(v T) { q.all = append(q.all, v) }

func (q *queue[T]) pop() T {
	var none T
	v := q.all[q.head]
	q.all[q.head] = none
	q.head++
	if q.head > 64 && q.head > len(q.all)/2 {
		q.keep(func(T) bool { return true })
	}
	return v
}

// keep those for which good says so.
func (q *queue[T]) keep(good func(T) bool) {
	left := q.all[:0]
	for _, v := range q.all[q.head:] {
		if good(v) {
			left = append(left, v)
		}
	}
	clear(q.all[len(left):])
	q.all, q.head = left, 0
}
