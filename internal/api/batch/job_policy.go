package batch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api/validate"
)

const (
	maxFailureRules     = 20
	maxExitCodes        = 255
	maxPodConditions    = 20
	maxSuccessRules     = 20
	maxSucceededIndexes = 64 * 1024 // bytes
)

// policies checks what a job says of failed and succeeded pods.
func policies(e *validate.Errs, s *batchv1.JobSpec, p *validate.Path) {
	if s.PodFailurePolicy != nil {
		failurePolicy(e, s, p.Child("podFailurePolicy").Child("rules"))
	}
	if s.SuccessPolicy != nil {
		if at := p.Child("successPolicy"); indexed(s) {
			successPolicy(e, s, at.Child("rules"))
		} else {
			e.Invalid(at, *s.SuccessPolicy, "requires indexed completion mode")
		}
	}
	if r := s.PodReplacementPolicy; r != nil {
		at := p.Child("podReplacementPolicy")
		if s.PodFailurePolicy != nil {
			validate.OneOf(e, at, *r, batchv1.Failed)
		} else {
			validate.OneOf(e, at, *r, batchv1.Failed, batchv1.TerminatingOrFailed)
		}
	}
}

func failurePolicy(e *validate.Errs, s *batchv1.JobSpec, p *validate.Path) {
	rules := s.PodFailurePolicy.Rules
	if len(rules) > maxFailureRules {
		e.TooMany(p, len(rules), maxFailureRules)
	}
	containers := map[string]bool{}
	for _, list := range [][]corev1.Container{s.Template.Spec.Containers, s.Template.Spec.InitContainers} {
		for i := range list {
			containers[list[i].Name] = true
		}
	}
	for i := range rules {
		failureRule(e, s, &rules[i], containers, p.Index(i))
	}
}

func failureRule(e *validate.Errs, s *batchv1.JobSpec, r *batchv1.PodFailurePolicyRule, containers map[string]bool, p *validate.Path) {
	at := p.Child("action")
	switch r.Action {
	case "":
		e.Required(at, `valid values: ["Count" "FailIndex" "FailJob" "Ignore"]`)
	case batchv1.PodFailurePolicyActionFailIndex:
		if s.BackoffLimitPerIndex == nil {
			e.Invalid(at, r.Action, "requires the backoffLimitPerIndex to be set")
		}
	default:
		validate.OneOf(e, at, r.Action, batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex,
			batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore)
	}
	if r.OnExitCodes != nil {
		exitCodes(e, r.OnExitCodes, containers, p.Child("onExitCodes"))
	}
	if len(r.OnPodConditions) > 0 {
		podConditions(e, r.OnPodConditions, p.Child("onPodConditions"))
	}
	if r.OnExitCodes != nil && len(r.OnPodConditions) > 0 {
		e.Invalid(p, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported")
	}
	if r.OnExitCodes == nil && len(r.OnPodConditions) == 0 {
		e.Invalid(p, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required")
	}
}

func podConditions(e *validate.Errs, patterns []batchv1.PodFailurePolicyOnPodConditionsPattern, p *validate.Path) {
	if len(patterns) > maxPodConditions {
		e.TooMany(p, len(patterns), maxPodConditions)
	}
	for i, c := range patterns {
		at := p.Index(i)
		e.Invalids(at.Child("type"), string(c.Type), validate.QualifiedName(string(c.Type)))
		if c.Status == "" {
			e.Required(at.Child("status"), `valid values: ["False" "True" "Unknown"]`)
		} else {
			validate.OneOf(e, at.Child("status"), c.Status, corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)
		}
	}
}

func exitCodes(e *validate.Errs, r *batchv1.PodFailurePolicyOnExitCodesRequirement, containers map[string]bool, p *validate.Path) {
	if r.Operator == "" {
		e.Required(p.Child("operator"), `valid values: ["In" "NotIn"]`)
	} else {
		validate.OneOf(e, p.Child("operator"), r.Operator, batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn)
	}
	if r.ContainerName != nil && !containers[*r.ContainerName] {
		e.Invalid(p.Child("containerName"), *r.ContainerName, "must be one of the container or initContainer names in the pod template")
	}
	at := p.Child("values")
	if len(r.Values) == 0 {
		e.Invalid(at, r.Values, "at least one value is required")
	} else if len(r.Values) > maxExitCodes {
		e.TooMany(at, len(r.Values), maxExitCodes)
	}
	seen := map[int32]bool{}
	for i, code := range r.Values {
		if code == 0 && r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn {
			e.Invalid(at.Index(i), code, "must not be 0 for the In operator")
		}
		if seen[code] {
			e.Duplicate(at.Index(i), code)
		}
		seen[code] = true
	}
	if !slices.IsSorted(r.Values) {
		e.Invalid(at, r.Values, "must be ordered")
	}
}

func successPolicy(e *validate.Errs, s *batchv1.JobSpec, p *validate.Path) {
	rules := s.SuccessPolicy.Rules
	if len(rules) == 0 {
		e.Required(p, "at least one rules must be specified when the successPolicy is specified")
	}
	if len(rules) > maxSuccessRules {
		e.TooMany(p, len(rules), maxSuccessRules)
	}
	for i := range rules {
		successRule(e, &rules[i], value(s.Completions), p.Index(i))
	}
}

func successRule(e *validate.Errs, r *batchv1.SuccessPolicyRule, completions int32, p *validate.Path) {
	if r.SucceededCount == nil && r.SucceededIndexes == nil {
		e.Required(p, "at least one of succeededCount or succeededIndexes must be specified")
	}
	total := int32(0)
	if r.SucceededIndexes != nil {
		at := p.Child("succeededIndexes")
		if len(*r.SucceededIndexes) > maxSucceededIndexes {
			e.TooLong(at, maxSucceededIndexes)
		}
		intervals, err := parseIndexes(*r.SucceededIndexes, completions)
		if err != nil {
			e.Invalid(at, *r.SucceededIndexes, "error parsing succeededIndexes: "+err.Error())
		}
		for _, i := range intervals {
			total += i.last - i.first + 1
		}
	}
	if n := r.SucceededCount; n != nil {
		at := p.Child("succeededCount")
		validate.NotBelowZero(e, *n, at)
		if *n > completions {
			e.Invalid(at, *n, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", completions))
		}
		if r.SucceededIndexes != nil && *n > total {
			e.Invalid(at, *n, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total))
		}
	}
}

// interval of indexes, both ends included.
type interval struct{ first, last int32 }

// parseIndexes reads "1,3-5": increasing, below completions.
func parseIndexes(text string, completions int32) ([]interval, error) {
	if text == "" {
		return nil, nil
	}
	var all []interval
	for part := range strings.SplitSeq(text, ",") {
		i, err := parseInterval(part, completions)
		if err != nil {
			return nil, err
		}
		if n := len(all); n > 0 && all[n-1].last >= i.first {
			return nil, fmt.Errorf("non-increasing order, previous: %d, current: %d", all[n-1].last, i.first)
		}
		all = append(all, i)
	}
	return all, nil
}

func parseInterval(text string, completions int32) (interval, error) {
	ends := strings.Split(text, "-")
	if len(ends) > 2 {
		return interval{}, fmt.Errorf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", text)
	}
	var n [2]int32
	for i, end := range ends {
		v, err := strconv.Atoi(end)
		if err != nil {
			return interval{}, fmt.Errorf("cannot convert string to integer for index: %q", end)
		}
		if v >= int(completions) {
			return interval{}, fmt.Errorf("too large index: %q", end)
		}
		n[i] = int32(v)
	}
	if len(ends) == 1 {
		return interval{n[0], n[0]}, nil
	}
	if n[0] >= n[1] {
		return interval{}, fmt.Errorf("non-increasing order, previous: %d, current: %d", n[0], n[1])
	}
	return interval{n[0], n[1]}, nil
}

// overlap is an index that is in both lists.
func overlap(a, b []interval) (int32, bool) {
	for len(a) > 0 && len(b) > 0 {
		if a[0].first <= b[0].last && b[0].first <= a[0].last {
			return max(a[0].first, b[0].first), true
		}
		if a[0].first <= b[0].first {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return 0, false
}
