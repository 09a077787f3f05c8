package scheduler

import (
	"fmt"
	"sort"
	"strings"
)

// because says in kube-scheduler's words why no node takes a pod:
// "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable."
func because(r *refusal, total int) string {
	if total == 0 {
		return "no nodes available to schedule pods"
	}
	if r.whole != nil {
		return fmt.Sprintf("0/%d nodes are available: %s.", total, strings.Join(r.whole.reason, ", "))
	}
	return fmt.Sprintf("0/%d nodes are available: %s.", total, histogram(r.verdicts))
}

// nobody says why removing other pods would not help either.
func nobody(reasons []*verdict) string {
	return fmt.Sprintf("preemption: 0/%d nodes are available: %s.", len(reasons), histogram(reasons))
}

// histogram of the reasons, nil = none: "1 Insufficient cpu, 2 node(s) were unschedulable".
func histogram(verdicts []*verdict) string {
	count := map[string]int{}
	for _, v := range verdicts {
		if v == nil {
			continue
		}
		for _, why := range v.reason {
			count[why]++
		}
	}
	parts := make([]string, 0, len(count))
	for reason, n := range count {
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	sort.Strings(parts)
	return strings.Join(parts, ", ")
}
