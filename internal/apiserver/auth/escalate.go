package auth

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Uncovered returns the parts of wanted that owned does not allow, so that
// nobody grants what they do not have. A part is one verb on one resource of
// one group and name, or one verb on one path.
func Uncovered(owned, wanted []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var missing []rbacv1.PolicyRule
	for _, w := range wanted {
		for _, part := range breakdown(w) {
			if !slices.ContainsFunc(owned, func(o rbacv1.PolicyRule) bool { return covers(&o, &part) }) {
				missing = append(missing, part)
			}
		}
	}
	return missing
}

func breakdown(r rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var parts []rbacv1.PolicyRule
	for _, v := range r.Verbs {
		for _, g := range r.APIGroups {
			for _, res := range r.Resources {
				p := rbacv1.PolicyRule{Verbs: []string{v}, APIGroups: []string{g}, Resources: []string{res}}
				if len(r.ResourceNames) == 0 {
					parts = append(parts, p)
				}
				for _, n := range r.ResourceNames {
					q := p
					q.ResourceNames = []string{n}
					parts = append(parts, q)
				}
			}
		}
		for _, u := range r.NonResourceURLs {
			parts = append(parts, rbacv1.PolicyRule{Verbs: []string{v}, NonResourceURLs: []string{u}})
		}
	}
	return parts
}

// covers says whether o allows all of a part made by breakdown.
func covers(o, part *rbacv1.PolicyRule) bool {
	if !has(o.Verbs, part.Verbs[0]) {
		return false
	}
	if len(part.NonResourceURLs) > 0 {
		want := part.NonResourceURLs[0]
		return slices.ContainsFunc(o.NonResourceURLs, func(have string) bool {
			prefix, star := strings.CutSuffix(have, "*")
			return have == want || have == "*" || star && strings.HasPrefix(want, prefix)
		})
	}
	if !has(o.APIGroups, part.APIGroups[0]) {
		return false
	}
	resource, sub, _ := strings.Cut(part.Resources[0], "/")
	if !slices.Contains(o.Resources, part.Resources[0]) && !resourceMatches(o.Resources, resource, sub) {
		return false
	}
	if len(o.ResourceNames) == 0 {
		return true
	}
	return len(part.ResourceNames) > 0 && slices.Contains(o.ResourceNames, part.ResourceNames[0])
}
