package scheduler

import "math"

// pick the best node, not counting those to skip. It returns nil when none fits.
func (b *board) pick(skip map[int32]bool) (*node, int64) {
	cells, feasible := b.judge()
	if feasible == 0 {
		return nil, 0
	}
	if feasible > 1 {
		b.grade(cells, feasible)
	} else {
		for _, c := range cells {
			c.total = 0
		}
	}
	var best *line
	var bestTotal int64
	for _, c := range cells {
		top := c.top(skip)
		if top < 0 {
			continue
		}
		l := b.line(top)
		total := c.total + l.score
		if best == nil || total > bestTotal || total == bestTotal && b.before(l, best) {
			best, bestTotal = l, total
		}
	}
	if best == nil {
		return nil, 0
	}
	return best.node, bestTotal
}

// whole is what is wrong with the pods wherever they go, nil = nothing.
func (b *board) whole() *verdict {
	if b.c.only != nil && len(b.c.only) == 0 && b.c.options.filters.has(nodeAffinity) {
		return saidNamesConflict
	}
	if b.want != nil {
		return b.want.rejected
	}
	return nil
}

// judge which cells fit, and how many nodes are in them.
func (b *board) judge() (cells []*cell, nodes int) {
	if b.whole() != nil {
		return nil, 0
	}
	rules := b.rules()
	cells = b.order[:0:0]
	for _, c := range b.order {
		if len(c.heap) == 0 {
			continue
		}
		if rules.fits(c, 0) == nil {
			cells = append(cells, c)
			nodes += len(c.heap)
		}
	}
	return cells, nodes
}

// verdict on one node, as things stand.
func (b *board) verdict(slot int32) *verdict {
	if v := b.whole(); v != nil {
		return v
	}
	l := b.line(slot)
	switch {
	case l == nil:
		return saidNotNamed
	case l.now != nil:
		return l.now
	}
	return b.rules().fits(nil, slot)
}

// grade the cells that fit: all scores that are not a node's alone.
func (b *board) grade(cells []*cell, feasible int) {
	b.gradeSpread(cells, feasible)
	var mostTaints, mostPrefer int64
	lowest, highest := int64(math.MaxInt64), int64(math.MinInt64)
	for _, c := range cells {
		mostTaints, mostPrefer = max(mostTaints, c.taints), max(mostPrefer, c.prefer)
		c.pods = 0
		for i := range b.dims {
			if b.dims[i].what == isPreference {
				c.pods += c.value(i)
			}
		}
		lowest, highest = min(lowest, c.pods), max(highest, c.pods)
	}
	o := &b.c.options.weights
	weights := [...]int64{gradeTaints: o[taintToleration], gradeAffinity: o[nodeAffinity], gradeSpread: o[podTopologySpread], gradePods: o[interPodAffinity]}
	for _, c := range cells {
		c.grades = [...]int64{gradeTaints: 100, gradeSpread: c.spread, gradePods: 0}
		if mostTaints > 0 {
			c.grades[gradeTaints] -= 100 * c.taints / mostTaints
		}
		if mostPrefer > 0 {
			c.grades[gradeAffinity] = 100 * c.prefer / mostPrefer
		}
		if highest > lowest {
			c.grades[gradePods] = int64(100 * (float64(c.pods-lowest) / float64(highest-lowest)))
		}
		c.total = 0
		for i, g := range c.grades {
			c.total += weights[i] * g
		}
	}
}
