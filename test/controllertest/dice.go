package controllertest

import (
	"hash/fnv"
	"math/rand/v2"
	"sync"
)

// dice decide what goes wrong. Each stream ("create pods") has its own, so that
// what befalls its n-th request follows from the seed, however the requests of
// different streams mix.
type dice struct {
	seed    uint64
	mu      sync.Mutex
	streams map[string]*stream
}

type stream struct {
	*rand.Rand
	left int // requests until the next fault
}

func newDice(seed uint64) *dice { return &dice{seed: seed, streams: map[string]*stream{}} }

// of a stream. The lock is held.
func (d *dice) of(name string) *stream {
	s := d.streams[name]
	if s == nil {
		h := fnv.New64()
		_, _ = h.Write([]byte(name))
		s = &stream{Rand: rand.New(rand.NewPCG(d.seed, h.Sum64())), left: -1}
		d.streams[name] = s
	}
	return s
}

// now says whether a stream's next request is hit, as one of n is on average, and
// never fewer than one of 2n-1, and by which of so many faults.
func (d *dice) now(name string, n, faults int) (what int, hit bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.of(name)
	if s.left < 0 {
		s.left = s.IntN(2*n - 1)
	}
	s.left--
	if s.left >= 0 {
		return 0, false
	}
	return s.IntN(faults), true
}

// roll a number below n.
func (d *dice) roll(name string, n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.of(name).IntN(n)
}

// shuffle implements rand.Shuffle on a stream.
func (d *dice) shuffle(name string, n int, swap func(i, j int)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.of(name).Shuffle(n, swap)
}
