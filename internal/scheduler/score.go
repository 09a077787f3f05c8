package scheduler

// scoreNode is what a node scores by itself, and how much of it would be left,
// which tells nodes of one score apart.
func (w *world) scoreNode(c *class, n *node) (score int64, free float64) {
	o := c.options
	if weight := o.weights[nodeResourcesFit]; weight > 0 {
		score += weight * o.fit.score(c, n)
	}
	if weight := o.weights[balancedAllocation]; weight > 0 {
		score += weight * o.balanced(c, n)
	}
	if weight := o.weights[imageLocality]; weight > 0 && len(n.images) > 0 {
		score += weight * w.imageLocality(c, n)
	}
	if n.alloc.cpu > 0 {
		free += float64(n.alloc.cpu-n.cpu) / float64(n.alloc.cpu)
	}
	if n.alloc.memory > 0 {
		free += float64(n.alloc.memory-n.memory) / float64(n.alloc.memory)
	}
	if o.fit.kind == mostFull {
		free = -free
	}
	return score, free
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
			sum += int64(float64(size) * (float64(w.imaged[name]) / float64(len(w.nodes))))
		}
	}
	most := int64(imageMost) * int64(c.containers)
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
