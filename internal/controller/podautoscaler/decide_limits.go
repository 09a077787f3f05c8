package podautoscaler

import (
	"math"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// history of one autoscaler, in memory: what was recommended, and what was done.
// The lists are not changed in place.
type history struct {
	known    bool
	wanted   []recommendation // before they were stabilized
	up, down []change
}

type recommendation struct {
	replicas int32
	at       time.Time
}

// change of the number of replicas, by more than 0.
type change struct {
	by int32
	at time.Time
}

// longest is how far back anything looks: the largest window and period that the
// API takes.
const longest = time.Hour

// begun counts what was there first as recommended, so that a controller that has
// just started does not scale down at once.
func (h history) begun(current int32, now time.Time) history {
	if !h.known {
		h.known, h.wanted = true, []recommendation{{current, now}}
	}
	return h
}

func (h history) recommended(n int32, now time.Time) history {
	kept := slices.DeleteFunc(slices.Clone(h.wanted), func(r recommendation) bool { return now.Sub(r.at) > longest })
	h.wanted = append(kept, recommendation{n, now})
	return h
}

// scaled notes a change, if there are behaviours that ask for it.
func (h history) scaled(b *autoscalingv2.HorizontalPodAutoscalerBehavior, from, to int32, now time.Time) history {
	if b == nil {
		return h
	}
	list := &h.up
	by := to - from
	if by <= 0 {
		list, by = &h.down, -by
	}
	kept := slices.DeleteFunc(slices.Clone(*list), func(c change) bool { return now.Sub(c.at) > longest })
	*list = append(kept, change{by, now})
	return h
}

// in a period until now so many replicas were added or taken away.
func in(period int32, changes []change, now time.Time) (sum int32) {
	from := now.Add(-time.Duration(period) * time.Second)
	for _, c := range changes {
		if c.at.After(from) {
			sum += c.by
		}
	}
	return sum
}

// limited is a wish after stabilization and limits. It sets the conditions that
// tell of them.
func (p *plan) limited(s *snapshot, wish int32) int32 {
	steady, reason, message := p.stabilized(s, wish)
	if steady == wish {
		reason, message = "ReadyForNewScale", "recommended size matches current size"
	}
	p.condition(autoscalingv2.AbleToScale, true, reason, message, s.now)
	n, reason, message := p.within(s, steady)
	p.condition(autoscalingv2.ScalingLimited, n != steady, reason, message, s.now)
	return n
}

const (
	higher = "recent recommendations were higher than current one, applying the highest recent recommendation"
	lower  = "recent recommendations were lower than current one, applying the lowest recent recommendation"
)

// stabilized by what was recommended in the windows.
func (p *plan) stabilized(s *snapshot, wish int32) (n int32, reason, message string) {
	past := p.history.wanted
	p.history = p.history.recommended(wish, s.now)
	b := s.scaler.Spec.Behavior
	if b == nil {
		n = wish
		for _, r := range past {
			if !r.at.Before(s.now.Add(-s.Downscale)) {
				n = max(n, r.replicas)
			}
		}
		return n, "ScaleDownStabilized", higher
	}
	up := s.now.Add(-window(b.ScaleUp, 0))
	down := s.now.Add(-window(b.ScaleDown, s.Downscale))
	least, most := wish, wish
	for _, r := range past {
		if r.at.After(up) {
			least = min(least, r.replicas)
		}
		if r.at.After(down) {
			most = max(most, r.replicas)
		}
	}
	current := s.scale.Spec.Replicas
	n = min(max(current, least), most)
	if wish >= current {
		return n, "ScaleUpStabilized", lower
	}
	return n, "ScaleDownStabilized", higher
}

// window of stabilization.
func window(r *autoscalingv2.HPAScalingRules, usual time.Duration) time.Duration {
	if r == nil || r.StabilizationWindowSeconds == nil {
		return usual
	}
	return time.Duration(*r.StabilizationWindowSeconds) * time.Second
}

// within the limits of the spec and of how fast it may change.
func (p *plan) within(s *snapshot, wish int32) (n int32, reason, message string) {
	const (
		tooMany = "the desired replica count is more than the maximum replica count"
		tooFew  = "the desired replica count is less than the minimum replica count"
		rising  = "the desired replica count is increasing faster than the maximum scale rate"
		falling = "the desired replica count is decreasing faster than the maximum scale rate"
	)
	current, least, most, b := s.scale.Spec.Replicas, lowest(s.scaler), s.scaler.Spec.MaxReplicas, s.scaler.Spec.Behavior
	reason, message = "TooManyReplicas", tooMany
	switch {
	case b == nil:
		if fastest := int32(math.Max(2*float64(current), 4)); fastest < most {
			most, reason, message = fastest, "ScaleUpLimit", rising
		}
		if wish < least {
			return least, "TooFewReplicas", tooFew
		}
	case wish > current:
		if fastest := max(p.highest(b.ScaleUp, current, s.now), current); fastest < most {
			most, reason, message = fastest, "ScaleUpLimit", rising
		}
	case wish < current:
		if fastest := min(p.fewest(b.ScaleDown, current, s.now), current); fastest > least {
			least, reason, message = fastest, "ScaleDownLimit", falling
		} else {
			reason, message = "TooFewReplicas", tooFew
		}
		if wish < least {
			return least, reason, message
		}
		most = math.MaxInt32
	default:
		most = math.MaxInt32
	}
	if wish > most {
		return most, reason, message
	}
	return wish, "DesiredWithinRange", "the desired count is within the acceptable range"
}

// highest number of replicas that rules let it scale up to now.
func (p *plan) highest(r *autoscalingv2.HPAScalingRules, current int32, now time.Time) int32 {
	return p.bound(r, current, now, func(start int32, policy autoscalingv2.HPAScalingPolicy) int32 {
		if policy.Type == autoscalingv2.PodsScalingPolicy {
			return start + policy.Value
		}
		return ceil(float64(start) * (1 + float64(policy.Value)/100)) // rounded up, or it might never move
	}, func(a, b int32) int32 { return max(a, b) }, func(a, b int32) int32 { return min(a, b) })
}

// fewest replicas that rules let it scale down to now.
func (p *plan) fewest(r *autoscalingv2.HPAScalingRules, current int32, now time.Time) int32 {
	return p.bound(r, current, now, func(start int32, policy autoscalingv2.HPAScalingPolicy) int32 {
		if policy.Type == autoscalingv2.PodsScalingPolicy {
			return start - policy.Value
		}
		return int32(float64(start) * (1 - float64(policy.Value)/100))
	}, func(a, b int32) int32 { return min(a, b) }, func(a, b int32) int32 { return max(a, b) })
}

// bound that policies set: the furthest of them, or with Min the nearest. Each is
// counted from what there was when its period began.
func (p *plan) bound(r *autoscalingv2.HPAScalingRules, current int32, now time.Time,
	of func(start int32, policy autoscalingv2.HPAScalingPolicy) int32, furthest, nearest func(a, b int32) int32) int32 {
	pick := furthest
	if r != nil && r.SelectPolicy != nil {
		switch *r.SelectPolicy {
		case autoscalingv2.DisabledPolicySelect:
			return current
		case autoscalingv2.MinChangePolicySelect:
			pick = nearest
		}
	}
	if r == nil || len(r.Policies) == 0 {
		return current
	}
	var n int32
	for i, policy := range r.Policies {
		start := current - in(policy.PeriodSeconds, p.history.up, now) + in(policy.PeriodSeconds, p.history.down, now)
		if v := of(start, policy); i == 0 {
			n = v
		} else {
			n = pick(n, v)
		}
	}
	return n
}
