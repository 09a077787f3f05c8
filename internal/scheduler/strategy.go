package scheduler

import (
	"math"

	corev1 "k8s.io/api/core/v1"
)

// scoring of how full a node is: NodeResourcesFit's scoringStrategy.
type scoring struct {
	kind      int
	resources []weightedResource
	shape     []shapePoint // for byRatio
	usual     bool         // leastFull of CPU and memory alike
}

const (
	leastFull = iota
	mostFull
	byRatio
)

type weightedResource struct {
	name   corev1.ResourceName
	weight int64
}

// shapePoint: what a utilization in hundredths scores.
type shapePoint struct{ at, score int64 }

func usualScoring() scoring {
	return scoring{kind: leastFull, usual: true, resources: []weightedResource{{corev1.ResourceCPU, 1}, {corev1.ResourceMemory, 1}}}
}

// score of a node with one more pod of a class.
func (s *scoring) score(c *class, n *node) int64 {
	if s.usual {
		return leastAllocated(c, n)
	}
	var sum, of int64
	for _, r := range s.resources {
		used, total := n.scored(c, r.name)
		if total == 0 {
			continue
		}
		score := s.of(used, total)
		if s.kind == byRatio && score <= 0 {
			continue
		}
		sum, of = sum+score*r.weight, of+r.weight
	}
	if of == 0 {
		return 0
	}
	if s.kind == byRatio {
		return int64(math.Round(float64(sum) / float64(of)))
	}
	return sum / of
}

func (s *scoring) of(used, total int64) int64 {
	switch {
	case s.kind == byRatio && used > total:
		return s.along(100)
	case s.kind == byRatio:
		return s.along(used * 100 / total)
	case s.kind == mostFull:
		return min(used, total) * 100 / total
	case used > total:
		return 0
	}
	return (total - used) * 100 / total
}

// along the shape, straight between its points.
func (s *scoring) along(percent int64) int64 {
	for i, p := range s.shape {
		if percent > p.at {
			continue
		}
		if i == 0 {
			return p.score
		}
		before := s.shape[i-1]
		return before.score + (p.score-before.score)*(percent-before.at)/(p.at-before.at)
	}
	return s.shape[len(s.shape)-1].score
}

// leastAllocated: what share of CPU and memory would be left.
func leastAllocated(c *class, n *node) int64 {
	var sum, of int64
	left := func(used, total int64) {
		if total > 0 {
			of++
			if used <= total {
				sum += (total - used) * 100 / total
			}
		}
	}
	left(n.cpu+c.scoreCPU, n.alloc.cpu)
	left(n.memory+c.scoreMemory, n.alloc.memory)
	if of == 0 {
		return 0
	}
	return sum / of
}

// scored is how much of a resource would be used, with defaults for pods that did
// not say, and how much there is; 0 = does not count.
func (n *node) scored(c *class, name corev1.ResourceName) (used, total int64) {
	switch name {
	case corev1.ResourceCPU:
		return n.cpu + c.scoreCPU, n.alloc.cpu
	case corev1.ResourceMemory:
		return n.memory + c.scoreMemory, n.alloc.memory
	}
	return n.exact(c, name)
}

// exact is how much of a resource would be used and how much there is, as asked for.
func (n *node) exact(c *class, name corev1.ResourceName) (used, total int64) {
	switch name {
	case corev1.ResourceCPU:
		return n.used.cpu + c.requests.cpu, n.alloc.cpu
	case corev1.ResourceMemory:
		return n.used.memory + c.requests.memory, n.alloc.memory
	case corev1.ResourceEphemeralStorage:
		return n.used.ephemeral + c.requests.ephemeral, n.alloc.ephemeral
	}
	if c.requests.other[name] == 0 {
		return 0, 0
	}
	return n.used.other[name] + c.requests.other[name], n.alloc.other[name]
}

// balanced: how alike the used shares of resources would be, against how alike they
// are. Pods that ask for none of them are not judged by it.
func (o *Options) balanced(c *class, n *node) int64 {
	var room [8]float64
	with, without := room[:0:4], room[4:4:8]
	asks := false
	for _, name := range o.balance {
		used, total := n.exact(c, name)
		own := c.requests.of(name)
		asks = asks || own != 0
		if total > 0 {
			with = append(with, min(1, float64(used)/float64(total)))
			without = append(without, min(1, float64(used-own)/float64(total)))
		}
	}
	if !asks {
		return 0
	}
	return 50 + (50+alike(with)-alike(without))/2
}

func alike(shares []float64) int64 {
	deviation := 0.0
	switch {
	case len(shares) == 2:
		deviation = math.Abs((shares[0] - shares[1]) / 2)
	case len(shares) > 2:
		var sum, squares float64
		for _, x := range shares {
			sum += x
		}
		mean := sum / float64(len(shares))
		for _, x := range shares {
			squares += (x - mean) * (x - mean)
		}
		deviation = math.Sqrt(squares / float64(len(shares)))
	}
	return int64((1 - deviation) * 100)
}
