package batch

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api/core"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/validate"
)

const (
	maxIndexed         = 100_000 // parallelism and failed indexes of an indexed job
	highCompletions    = 100_000 // above this some limits are lower
	highParallelism    = 10_000
	highFailedIndexes  = 10_000
	maxManagedByLength = 63
)

func validateJob(j, old *batchv1.Job, sub string) field.ErrorList {
	var e validate.Errs
	if sub == "status" {
		jobStatus(&e, j, old, validate.Root("status"))
		return e.List()
	}
	p := validate.Root("spec")
	generatedSelector(&e, j, old, p)
	var was *batchv1.JobSpec
	if old != nil {
		was = &old.Spec
	}
	jobSpec(&e, &j.Spec, was, p)
	ownSelector(&e, &j.Spec, was, p)
	if indexed(&j.Spec) && value(j.Spec.Completions) > 0 {
		host := fmt.Sprintf("%s-%d", j.Name, *j.Spec.Completions-1)
		if validate.Label(host) != nil {
			e.Invalid(validate.Root("metadata").Child("name"), j.Name, "will not able to create pod with invalid DNS label: "+host)
		}
	}
	if old != nil {
		jobUpdate(&e, j, old, p)
	}
	return e.List()
}

// generatedSelector checks that a selector that was not made by hand is the one
// Reset makes.
func generatedSelector(e *validate.Errs, j, old *batchv1.Job, p *validate.Path) {
	if value(j.Spec.ManualSelector) || j.Spec.Selector == nil {
		return
	}
	if j.UID == "" {
		e.Required(validate.Root("metadata").Child("uid"), "")
	}
	want := map[string]string{legacyUIDLabel: string(j.UID), legacyNameLabel: j.Name}
	prefixed := true
	if old != nil { // a job from before the labels had a prefix
		_, name := old.Spec.Template.Labels[batchv1.JobNameLabel]
		_, uid := old.Spec.Template.Labels[batchv1.ControllerUidLabel]
		prefixed = name && uid
	}
	order := []string{legacyUIDLabel, legacyNameLabel}
	if prefixed {
		want[batchv1.ControllerUidLabel], want[batchv1.JobNameLabel] = string(j.UID), j.Name
		order = append(order, batchv1.ControllerUidLabel, batchv1.JobNameLabel)
	}
	at := p.Child("template").Child("metadata").Child("labels")
	for _, key := range order {
		if got, ok := j.Spec.Template.Labels[key]; !ok {
			e.Required(at.Key(key), fmt.Sprintf("must be '%s'", want[key]))
		} else if got != want[key] {
			e.Invalid(at.Key(key), j.Spec.Template.Labels, fmt.Sprintf("must be '%s'", want[key]))
		}
	}
	if s, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !s.Matches(labels.Set(want)) {
		e.Invalid(p.Child("selector"), j.Spec.Selector, "`selector` not auto-generated")
	}
}

// ownSelector checks the selector of a job, which its template must match.
func ownSelector(e *validate.Errs, s, old *batchv1.JobSpec, p *validate.Path) {
	if s.Selector == nil {
		e.Required(p.Child("selector"), "")
	} else if old == nil {
		validate.Selector(e, s.Selector, p.Child("selector"))
	} else {
		validate.SelectorUpdate(e, s.Selector, old.Selector, p.Child("selector"))
	}
	if selector, err := metav1.LabelSelectorAsSelector(s.Selector); err == nil && !selector.Matches(labels.Set(s.Template.Labels)) {
		e.Invalid(p.Child("template").Child("metadata").Child("labels"), s.Template.Labels, "`selector` does not match template `labels`")
	}
}

// jobSpec checks what jobs and the job templates of CronJobs have in common.
func jobSpec(e *validate.Errs, s, old *batchv1.JobSpec, p *validate.Path) {
	optional(e, s.Parallelism, p.Child("parallelism"))
	optional(e, s.Completions, p.Child("completions"))
	optional(e, s.ActiveDeadlineSeconds, p.Child("activeDeadlineSeconds"))
	optional(e, s.BackoffLimit, p.Child("backoffLimit"))
	optional(e, s.TTLSecondsAfterFinished, p.Child("ttlSecondsAfterFinished"))
	optional(e, s.BackoffLimitPerIndex, p.Child("backoffLimitPerIndex"))
	optional(e, s.MaxFailedIndexes, p.Child("maxFailedIndexes"))
	if s.MaxFailedIndexes != nil && s.BackoffLimitPerIndex == nil {
		e.Required(p.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified")
	}
	if m := s.ManagedBy; m != nil {
		e.Add(validation.IsDomainPrefixedPath(p.Child("managedBy").Field(), *m)...)
		if len(*m) > maxManagedByLength {
			e.TooLong(p.Child("managedBy"), maxManagedByLength)
		}
	}
	if s.CompletionMode != nil {
		validate.OneOf(e, p.Child("completionMode"), *s.CompletionMode, batchv1.NonIndexedCompletion, batchv1.IndexedCompletion)
	}
	if indexed(s) {
		indexedSpec(e, s, p)
	} else if s.CompletionMode == nil || *s.CompletionMode == batchv1.NonIndexedCompletion {
		if s.BackoffLimitPerIndex != nil {
			e.Invalid(p.Child("backoffLimitPerIndex"), *s.BackoffLimitPerIndex, "requires indexed completion mode")
		}
		if s.MaxFailedIndexes != nil {
			e.Invalid(p.Child("maxFailedIndexes"), *s.MaxFailedIndexes, "requires indexed completion mode")
		}
	}
	policies(e, s, p)
	if old == nil {
		core.ValidatePodTemplate(e, &s.Template, nil, p.Child("template"))
	} else {
		core.ValidatePodTemplate(e, &s.Template, &old.Template, p.Child("template"))
	}
	restartPolicy(e, s, p.Child("template").Child("spec").Child("restartPolicy"))
}

func restartPolicy(e *validate.Errs, s *batchv1.JobSpec, p *validate.Path) {
	switch r := s.Template.Spec.RestartPolicy; {
	case r == corev1.RestartPolicyAlways || r == "":
		e.Required(p, `valid values: "OnFailure", "Never"`)
	case r != corev1.RestartPolicyOnFailure && r != corev1.RestartPolicyNever:
		validate.NotSupported(e, p, r, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	case s.PodFailurePolicy != nil && r != corev1.RestartPolicyNever:
		e.Invalid(p, r, `only "Never" is supported when podFailurePolicy is specified`)
	}
}

func indexedSpec(e *validate.Errs, s *batchv1.JobSpec, p *validate.Path) {
	parallelism, failed := p.Child("parallelism"), p.Child("maxFailedIndexes")
	if s.Completions == nil {
		e.Required(p.Child("completions"), "when completion mode is Indexed")
	}
	if n := value(s.Parallelism); n > maxIndexed {
		e.Invalid(parallelism, n, fmt.Sprintf("must be less than or equal to %d when completion mode is Indexed", maxIndexed))
	}
	if n := value(s.MaxFailedIndexes); s.Completions != nil && n > *s.Completions {
		e.Invalid(failed, n, "must be less than or equal to completions")
	}
	if n := value(s.MaxFailedIndexes); n > maxIndexed {
		e.Invalid(failed, n, fmt.Sprintf("must be less than or equal to %d", maxIndexed))
	}
	if value(s.Completions) <= highCompletions || s.BackoffLimitPerIndex == nil {
		return
	}
	const lower = "must be less than or equal to %d when completions are above %d and used with backoff limit per index"
	if s.MaxFailedIndexes == nil {
		e.Required(failed, fmt.Sprintf("must be specified when completions is above %d", highCompletions))
	}
	if n := value(s.Parallelism); n > highParallelism {
		e.Invalid(parallelism, n, fmt.Sprintf(lower, highParallelism, highCompletions))
	}
	if n := value(s.MaxFailedIndexes); n > highFailedIndexes {
		e.Invalid(failed, n, fmt.Sprintf(lower, highFailedIndexes, highCompletions))
	}
}

func jobUpdate(e *validate.Errs, j, old *batchv1.Job, p *validate.Path) {
	s, was := &j.Spec, &old.Spec
	if !indexed(s) {
		e.Immutable(p.Child("completions"), s.Completions, was.Completions)
	} else if reset.Differ(s.Completions, was.Completions) && s.Completions != nil && *s.Completions != value(s.Parallelism) {
		e.Invalid(p.Child("completions"), *s.Completions, "can only be modified in tandem with spec.parallelism")
	}
	e.Immutable(p.Child("selector"), s.Selector, was.Selector)
	templateUpdate(e, s, old, p)
	e.Immutable(p.Child("completionMode"), s.CompletionMode, was.CompletionMode)
	e.Immutable(p.Child("podFailurePolicy"), s.PodFailurePolicy, was.PodFailurePolicy)
	e.Immutable(p.Child("backoffLimitPerIndex"), s.BackoffLimitPerIndex, was.BackoffLimitPerIndex)
	e.Immutable(p.Child("managedBy"), s.ManagedBy, was.ManagedBy)
	e.Immutable(p.Child("successPolicy"), s.SuccessPolicy, was.SuccessPolicy)
}

// templateUpdate lets a job that is suspended and at rest change where its pods
// may run (KEP-2926) and what they may use (KEP-5440), and nothing else.
func templateUpdate(e *validate.Errs, s *batchv1.JobSpec, old *batchv1.Job, p *validate.Path) {
	was := &old.Spec.Template
	suspended := value(old.Spec.Suspend)
	atRest := suspended && old.Status.Active == 0 &&
		(old.Status.StartTime == nil || condition(old, batchv1.JobSuspended) == corev1.ConditionTrue)
	if !atRest {
		e.Immutable(p.Child("template"), &s.Template, was)
		return
	}
	was = was.DeepCopy()
	now := &s.Template
	was.Labels, was.Annotations = now.Labels, now.Annotations
	was.Spec.NodeSelector, was.Spec.Tolerations, was.Spec.SchedulingGates = now.Spec.NodeSelector, now.Spec.Tolerations, now.Spec.SchedulingGates
	takeNodeAffinity(&was.Spec, &now.Spec)
	takeResources(was.Spec.Containers, now.Spec.Containers)
	takeResources(was.Spec.InitContainers, now.Spec.InitContainers)
	e.Immutable(p.Child("template").Child("spec"), now.Spec, was.Spec)
}

func takeNodeAffinity(to, from *corev1.PodSpec) {
	var node *corev1.NodeAffinity
	if from.Affinity != nil {
		node = from.Affinity.NodeAffinity
	}
	if to.Affinity == nil {
		if from.Affinity != nil {
			to.Affinity = &corev1.Affinity{NodeAffinity: node}
		}
		return
	}
	to.Affinity.NodeAffinity = node
	if from.Affinity == nil && *to.Affinity == (corev1.Affinity{}) {
		to.Affinity = nil
	}
}

func takeResources(to, from []corev1.Container) {
	if len(to) != len(from) {
		return
	}
	for i := range to {
		if to[i].Name == from[i].Name {
			to[i].Resources = from[i].Resources
		}
	}
}

func optional[T int32 | int64](e *validate.Errs, n *T, p *validate.Path) {
	if n != nil {
		validate.NotBelowZero(e, *n, p)
	}
}
