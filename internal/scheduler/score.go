package scheduler

import (
	"math"
)

// Weights of the scores, as in upstream's default profile. Each score is 0 to 100.
const (
	weightSpread   = 2
	weightPods     = 2
	weightAffinity = 2
	weightTaints   = 3
)

// scoreNode is what a node scores by itself, and how much of it would be left,
// which tells nodes of one score apart.
func (w *world) scoreNode(c *class, n *node) (score int64, free float64) {
	o := c.options
	least := leastAllocated(c, n)
	score = o.weight("NodeResourcesFit", 1)*least + o.weight("NodeResourcesBalancedAllocation", 1)*balanced(c, n)
	if len(n.images) > 0 {
		score += o.weight("ImageLocality", 1) * w.imageLocality(c, n)
	}
	if n.alloc.cpu > 0 {
		free += float64(n.alloc.cpu-n.cpu) / float64(n.alloc.cpu)
	}
	if n.alloc.memory > 0 {
		free += float64(n.alloc.memory-n.memory) / float64(n.alloc.memory)
	}
	return score, free
}

// leastAllocated: what share of CPU and memory would be left.
func leastAllocated(p *class, n *node) int64 {
	var sum, of int64
	left := func(used, total int64) {
		if total > 0 {
			of++
			if used <= total {
				sum += (total - used) * 100 / total
			}
		}
	}
	left(n.cpu+p.cpu, n.alloc.cpu)
	left(n.memory+p.memory, n.alloc.memory)
	if of == 0 {
		return 0
	}
	return sum / of
}

// balanced: how alike the used shares of CPU and memory would be, against how
// alike they are. Pods that ask for neither are not judged by it.
func balanced(c *class, n *node) int64 {
	p := &c.requests
	if p.cpu == 0 && p.memory == 0 {
		return 0
	}
	score := func(cpu, memory int64) int64 {
		if n.alloc.cpu == 0 || n.alloc.memory == 0 {
			return 100
		}
		x := min(1, float64(cpu)/float64(n.alloc.cpu))
		y := min(1, float64(memory)/float64(n.alloc.memory))
		return int64((1 - math.Abs((x-y)/2)) * 100)
	}
	return 50 + (50+score(n.used.cpu+p.cpu, n.used.memory+p.memory)-score(n.used.cpu, n.used.memory))/2
}

const (
	imageLeast = 23 << 20   // sizes below this do not count …
	imageMost  = 1000 << 20 // … nor what is above this, per container
)

// imageLocality: how much of the pod's images the node has already, less where
// only few nodes have them, so that pods do not all flock to one node.
func (w *world) imageLocality(c *class, n *node) int64 {
	var sum int64
	for _, name := range c.images {
		if size, ok := n.images[name]; ok {
			sum += int64(float64(size) * float64(w.imaged[name]) / float64(len(w.nodes)))
		}
	}
	most := int64(imageMost) * int64(len(c.images))
	sum = min(max(sum, imageLeast), most)
	return 100 * (sum - imageLeast) / (most - imageLeast)
}

// normalImage adds the tag that an image without one means.
func normalImage(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		switch name[i] {
		case ':', '@':
			return name
		case '/':
			return name + ":latest"
		}
	}
	return name + ":latest"
}
