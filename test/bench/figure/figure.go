// Package figure collects what was measured, of several rounds and of both
// systems, and prints medians side by side.
package figure

import (
	"slices"
	"sync"
)

// System that was measured.
type System string

// The systems.
const (
	Proa     System = "proa"
	Upstream System = "upstream"
)

// Kind of a figure: its name and what is measured.
type Kind struct {
	Part string // of the benchmark that measures it: "api"
	Name string // "create a pod"
	Unit Unit
}

// Unit of a figure.
type Unit struct {
	Name string
	Less bool // is better
}

// The units.
var (
	PerSecond    = Unit{"/s", false}
	Microseconds = Unit{"µs", true}
	Milliseconds = Unit{"ms", true}
	Seconds      = Unit{"s", true}
	Megabytes    = Unit{"MB", true} // 10^6 bytes
	PercentCore  = Unit{"% of a core", true}
)

// Book of figures, in the order in which they were first added. Its methods may
// be called concurrently.
type Book struct {
	mu    sync.Mutex
	lines []*Line
}

// Line of a book: one figure of both systems, each round's value.
type Line struct {
	Kind
	Values map[System][]float64
}

// Add a value of one round.
func (b *Book) Add(k Kind, s System, value float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.lines, func(l *Line) bool { return l.Kind == k })
	if i < 0 {
		i = len(b.lines)
		b.lines = append(b.lines, &Line{Kind: k, Values: map[System][]float64{}})
	}
	b.lines[i].Values[s] = append(b.lines[i].Values[s], value)
}

// Lines as they are now.
func (b *Book) Lines() []*Line {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.lines)
}

// Median of a system's rounds; ok = there were any.
func (l *Line) Median(s System) (value float64, ok bool) {
	v := slices.Sorted(slices.Values(l.Values[s]))
	switch n := len(v); {
	case n == 0:
		return 0, false
	case n%2 == 0:
		return (v[n/2-1] + v[n/2]) / 2, true
	default:
		return v[n/2], true
	}
}

// Ratio says how many times better Proa is; ok = both were measured.
func (l *Line) Ratio() (ratio float64, ok bool) {
	p, ok1 := l.Median(Proa)
	u, ok2 := l.Median(Upstream)
	if !ok1 || !ok2 || p == 0 || u == 0 {
		return 0, false
	}
	if l.Unit.Less {
		return u / p, true
	}
	return p / u, true
}
