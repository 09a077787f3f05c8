package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/proa-dev/proa/internal/api/validate"
)

func affinity(e *validate.Errs, a *corev1.Affinity, p *validate.Path) {
	if a == nil {
		return
	}
	const must, want = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
	if n := a.NodeAffinity; n != nil {
		at := p.Child("nodeAffinity")
		if n.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			nodeSelector(e, n.RequiredDuringSchedulingIgnoredDuringExecution, at.Child(must))
		}
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			t, at := &n.PreferredDuringSchedulingIgnoredDuringExecution[i], at.Child(want).Index(i)
			weight(e, t.Weight, at)
			nodeSelectorTerm(e, &t.Preference, true, at.Child("preference"))
		}
	}
	terms := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, p *validate.Path) {
		for i := range required {
			podAffinityTerm(e, &required[i], p.Child(must).Index(i))
		}
		for i := range preferred {
			weight(e, preferred[i].Weight, p.Child(want).Index(i))
			podAffinityTerm(e, &preferred[i].PodAffinityTerm, p.Child(want).Index(i).Child("podAffinityTerm"))
		}
	}
	if x := a.PodAffinity; x != nil {
		terms(x.RequiredDuringSchedulingIgnoredDuringExecution, x.PreferredDuringSchedulingIgnoredDuringExecution, p.Child("podAffinity"))
	}
	if x := a.PodAntiAffinity; x != nil {
		terms(x.RequiredDuringSchedulingIgnoredDuringExecution, x.PreferredDuringSchedulingIgnoredDuringExecution, p.Child("podAntiAffinity"))
	}
}

func weight(e *validate.Errs, w int32, p *validate.Path) {
	if w <= 0 || w > 100 {
		e.Invalid(p.Child("weight"), w, "must be in the range 1-100")
	}
}

func nodeSelector(e *validate.Errs, s *corev1.NodeSelector, p *validate.Path) {
	terms := p.Child("nodeSelectorTerms")
	if len(s.NodeSelectorTerms) == 0 {
		e.Required(terms, "must have at least one node selector term")
	}
	for i := range s.NodeSelectorTerms {
		nodeSelectorTerm(e, &s.NodeSelectorTerms[i], false, terms.Index(i))
	}
}

func nodeSelectorTerm(e *validate.Errs, t *corev1.NodeSelectorTerm, anyValue bool, p *validate.Path) {
	for i := range t.MatchExpressions {
		r, at := &t.MatchExpressions[i], p.Child("matchExpressions").Index(i)
		switch r.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			if len(r.Values) == 0 {
				e.Required(at.Child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
			}
		case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				e.Forbidden(at.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
			}
		case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
			if len(r.Values) != 1 {
				e.Required(at.Child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'")
			}
		default:
			e.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator")
		}
		validate.LabelKey(e, r.Key, at.Child("key"))
		for j, v := range r.Values {
			if why := validate.LabelValue(v); why != nil && !anyValue {
				e.Invalids(at.Child("values").Index(j), v, why)
			}
		}
	}
	for i := range t.MatchFields {
		r, at := &t.MatchFields[i], p.Child("matchFields").Index(i)
		switch r.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			if len(r.Values) != 1 {
				e.Required(at.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector")
			}
		default:
			e.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator")
		}
		if r.Key != metav1.ObjectNameField {
			e.Invalid(at.Child("key"), r.Key, "not a valid field selector key")
			continue
		}
		for j, v := range r.Values {
			requiredSubdomain(e, v, at.Child("values").Index(j))
		}
	}
}

func podAffinityTerm(e *validate.Errs, t *corev1.PodAffinityTerm, p *validate.Path) {
	validate.Selector(e, t.LabelSelector, p.Child("labelSelector"))
	validate.Selector(e, t.NamespaceSelector, p.Child("namespaceSelector"))
	for _, name := range t.Namespaces {
		label(e, name, p.Child("namespace"))
	}
	matchLabelKeys(e, t.MatchLabelKeys, t.MismatchLabelKeys, t.LabelSelector, p)
	if t.TopologyKey == "" {
		e.Required(p.Child("topologyKey"), "can not be empty")
	}
	validate.LabelKey(e, t.TopologyKey, p.Child("topologyKey"))
}

// matchLabelKeys (KEP-3633): the selector holds what Reset made of the keys, so
// a key that is twice in it was the user's as well.
func matchLabelKeys(e *validate.Errs, match, mismatch []string, s *metav1.LabelSelector, p *validate.Path) {
	keys := func(keys []string, p *validate.Path) {
		if len(keys) > 0 && s == nil {
			e.Forbidden(p, "must not be specified when labelSelector is not set")
			return
		}
		for i, k := range keys {
			validate.LabelKey(e, k, p.Index(i))
		}
	}
	keys(match, p.Child("matchLabelKeys"))
	keys(mismatch, p.Child("mismatchLabelKeys"))
	if s != nil && len(match) > 0 {
		index := map[string]int{}
		for i, k := range match {
			index[k] = i
		}
		had := map[string]bool{}
		for k := range s.MatchLabels {
			had[k] = true
		}
		for _, r := range s.MatchExpressions {
			if i, ok := index[r.Key]; ok && had[r.Key] {
				e.Invalid(p.Index(i), r.Key, "exists in both matchLabelKeys and labelSelector")
			}
			had[r.Key] = true
		}
	}
	for i, k := range match {
		for _, m := range mismatch {
			if k == m {
				e.Invalid(p.Child("matchLabelKeys").Index(i), k, "exists in both matchLabelKeys and mismatchLabelKeys")
				break
			}
		}
	}
}

func spreadConstraints(e *validate.Errs, list []corev1.TopologySpreadConstraint, p *validate.Path) {
	type pair struct {
		key    string
		action corev1.UnsatisfiableConstraintAction
	}
	last := map[pair]int{}
	for i := range list {
		last[pair{list[i].TopologyKey, list[i].WhenUnsatisfiable}] = i
	}
	for i := range list {
		t, at := &list[i], p.Index(i)
		if t.MaxSkew <= 0 {
			e.Invalid(at.Child("maxSkew"), int64(t.MaxSkew), "must be greater than zero")
		}
		if t.TopologyKey == "" {
			e.Required(at.Child("topologyKey"), "can not be empty")
		}
		validate.OneOf(e, at.Child("whenUnsatisfiable"), t.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)
		if last[pair{t.TopologyKey, t.WhenUnsatisfiable}] > i {
			e.Duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), fmt.Sprintf("{%v, %v}", t.TopologyKey, t.WhenUnsatisfiable))
		}
		if t.MinDomains != nil {
			if *t.MinDomains <= 0 {
				e.Invalid(at.Child("minDomains"), int64(*t.MinDomains), "must be greater than zero")
			}
			if t.WhenUnsatisfiable != corev1.DoNotSchedule {
				e.Invalid(at.Child("minDomains"), *t.MinDomains, fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, t.WhenUnsatisfiable))
			}
		}
		if t.NodeAffinityPolicy != nil {
			validate.OneOf(e, at.Child("nodeAffinityPolicy"), *t.NodeAffinityPolicy, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
		}
		if t.NodeTaintsPolicy != nil {
			validate.OneOf(e, at.Child("nodeTaintsPolicy"), *t.NodeTaintsPolicy, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
		}
		matchLabelKeys(e, t.MatchLabelKeys, nil, t.LabelSelector, at)
		validate.Selector(e, t.LabelSelector, at.Child("labelSelector"))
	}
}

func tolerations(e *validate.Errs, list []corev1.Toleration, p *validate.Path) {
	for i := range list {
		t, at := &list[i], p.Index(i)
		if t.Key != "" {
			validate.LabelKey(e, t.Key, at.Child("key"))
		} else if t.Operator != corev1.TolerationOpExists {
			e.Invalid(at.Child("operator"), t.Operator, `operator must be Exists when `+"`key`"+` is empty, which means "match all values and all keys"`)
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			e.Invalid(at.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			if why := validate.LabelValue(t.Value); why != nil {
				e.Invalid(at.Child("operator"), t.Value, strings.Join(why, ";"))
			}
		case corev1.TolerationOpExists:
			if t.Value != "" {
				e.Invalid(at.Child("operator"), t.Value, "value must be empty when `operator` is 'Exists'")
			}
		case corev1.TolerationOpLt, corev1.TolerationOpGt: // known, but off in v1.36
			validate.NotSupported(e, at.Child("operator"), t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists, corev1.TolerationOpLt, corev1.TolerationOpGt)
		default:
			validate.NotSupported(e, at.Child("operator"), t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists)
		}
		if t.Effect != "" {
			taintEffect(e, t.Effect, at.Child("effect"))
		}
	}
}

func taintEffect(e *validate.Errs, effect corev1.TaintEffect, p *validate.Path) {
	validate.OneOf(e, p, effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
}

func schedulingGates(e *validate.Errs, gates []corev1.PodSchedulingGate, p *validate.Path) {
	var names seen[string]
	for i, g := range gates {
		validate.LabelKey(e, g.Name, p.Index(i))
		if !names.add(g.Name) {
			e.Duplicate(p.Index(i), g.Name)
		}
	}
}

func dnsConfig(e *validate.Errs, s *corev1.PodSpec, p *validate.Path) {
	c := s.DNSConfig
	if s.DNSPolicy == corev1.DNSNone {
		if c == nil {
			e.Required(p, "must provide `dnsConfig` when `dnsPolicy` is None")
			return
		}
		if len(c.Nameservers) == 0 {
			e.Required(p.Child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None")
			return
		}
	}
	if c == nil {
		return
	}
	if len(c.Nameservers) > 3 {
		e.Invalid(p.Child("nameservers"), c.Nameservers, "must not have more than 3 nameservers")
	}
	for i, ns := range c.Nameservers {
		ip(e, ns, nil, p.Child("nameservers").Index(i))
	}
	if len(c.Searches) > 32 {
		e.Invalid(p.Child("searches"), c.Searches, "must not have more than 32 search paths")
	}
	if len(strings.Join(c.Searches, " ")) > 2048 {
		e.Invalid(p.Child("searches"), c.Searches, "must not have more than 2048 characters (including spaces) in the search list")
	}
	for i, search := range c.Searches {
		if search != "." {
			search = strings.TrimSuffix(search, ".")
			e.Invalids(p.Child("searches").Index(i), search, validation.IsDNS1123SubdomainWithUnderscore(search))
		}
	}
	for i, o := range c.Options {
		if o.Name == "" {
			e.Required(p.Child("options").Index(i), "must not be empty")
		}
	}
}
