package fairness

import (
	"cmp"
	"math"
	"slices"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/proa-dev/proa/internal/api/flowcontrol"
)

// plan is the configuration made ready for requests: the schemas in the order in
// which they are tried, and the limits of each level.
type plan struct {
	schemas []schema
	limits  map[string]limits
}

// schema tells whose requests for what make a flow of which level.
type schema struct {
	name, level string
	by          flowcontrolv1.FlowDistinguisherMethodType // empty = all its requests are one flow
	rules       []flowcontrolv1.PolicyRulesWithSubjects
	headers     [2][]string // X-Kubernetes-PF-FlowSchema-UID and X-Kubernetes-PF-PriorityLevel-UID
}

// limits of a level, in seats.
type limits struct {
	exempt    bool
	nominal   int
	guarantee int // what others cannot borrow
	most      int // nominal and what may be borrowed
	queuing   *flowcontrolv1.QueuingConfiguration
}

// newPlan divides the seats of a server among the levels by their shares. The
// mandatory objects count as they are defined, whatever is stored in their place;
// schemas whose level is not there do not count.
func newPlan(schemas []*flowcontrolv1.FlowSchema, levels []*flowcontrolv1.PriorityLevelConfiguration, seats int) *plan {
	schemas, levels = withMandatory(schemas, flowcontrol.Schemas()), withMandatory(levels, flowcontrol.Levels())
	p := &plan{limits: map[string]limits{}}
	var sum float64
	for _, l := range levels {
		s, _, _ := sharesOf(l)
		sum += s
	}
	uids := map[string]string{}
	for _, l := range levels {
		shares, lendable, borrowing := sharesOf(l)
		n := int(math.Ceil(float64(seats) * shares / max(sum, 1)))
		lim := limits{nominal: n, guarantee: n - int(math.Round(float64(n)*lendable)), most: seats, exempt: l.Spec.Type == flowcontrolv1.PriorityLevelEnablementExempt}
		if borrowing >= 0 {
			lim.most = max(1, min(seats, n+int(math.Round(float64(n)*borrowing))))
		}
		if l.Spec.Limited != nil {
			lim.queuing = l.Spec.Limited.LimitResponse.Queuing
		}
		p.limits[l.Name], uids[l.Name] = lim, string(l.UID)
	}
	for _, f := range schemas {
		level := f.Spec.PriorityLevelConfiguration.Name
		if _, ok := p.limits[level]; !ok {
			continue
		}
		s := schema{name: f.Name, level: level, rules: f.Spec.Rules, headers: [2][]string{{string(f.UID)}, {uids[level]}}}
		if d := f.Spec.DistinguisherMethod; d != nil {
			s.by = d.Type
		}
		p.schemas = append(p.schemas, s)
	}
	order := map[string]int32{}
	for _, f := range schemas {
		order[f.Name] = f.Spec.MatchingPrecedence
	}
	slices.SortFunc(p.schemas, func(a, b schema) int {
		return cmp.Or(cmp.Compare(order[a.name], order[b.name]), cmp.Compare(a.name, b.name))
	})
	return p
}

// sharesOf a level, the part of its seats that it lends, and what it may borrow as
// a part of its own; negative = without a limit.
func sharesOf(l *flowcontrolv1.PriorityLevelConfiguration) (shares, lendable, borrowing float64) {
	part := func(p *int32) float64 {
		if p == nil {
			return 0
		}
		return float64(*p)
	}
	switch {
	case l.Spec.Exempt != nil:
		return part(l.Spec.Exempt.NominalConcurrencyShares), part(l.Spec.Exempt.LendablePercent) / 100, -1
	case l.Spec.Limited != nil:
		borrowing = -1
		if b := l.Spec.Limited.BorrowingLimitPercent; b != nil {
			borrowing = float64(*b) / 100
		}
		shares = 30
		if n := l.Spec.Limited.NominalConcurrencyShares; n != nil {
			shares = float64(*n)
		}
		return shares, part(l.Spec.Limited.LendablePercent) / 100, borrowing
	}
	return 0, 0, -1
}

// object of one of the two kinds.
type object interface{ GetName() string }

// withMandatory adds the mandatory ones of the defaults that are not there.
func withMandatory[T object](have, defaults []T) []T {
	have = slices.Clone(have)
	for _, d := range defaults {
		if flowcontrol.Mandatory(d.GetName()) && !slices.ContainsFunc(have, func(h T) bool { return h.GetName() == d.GetName() }) {
			have = append(have, d)
		}
	}
	return have
}
