package batch

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/validate"
)

// ended are the conditions of a job that say how it goes to its end.
type ended struct{ complete, failed, failing, met bool }

func endOf(j *batchv1.Job) ended {
	is := func(t batchv1.JobConditionType) bool { return condition(j, t) == corev1.ConditionTrue }
	return ended{is(batchv1.JobComplete), is(batchv1.JobFailed), is(batchv1.JobFailureTarget), is(batchv1.JobSuccessCriteriaMet)}
}

func (e ended) finished() bool { return e.complete || e.failed }

// jobStatus checks a status that anybody's controller may write (KEP-4368).
// What old had already is let be: only what has changed is checked against the
// rest.
func jobStatus(e *validate.Errs, j, old *batchv1.Job, p *validate.Path) {
	s, was := &j.Status, &old.Status
	validate.NotBelowZero(e, s.Active, p.Child("active"))
	validate.NotBelowZero(e, s.Succeeded, p.Child("succeeded"))
	validate.NotBelowZero(e, s.Failed, p.Child("failed"))
	optional(e, s.Ready, p.Child("ready"))
	optional(e, s.Terminating, p.Child("terminating"))
	if u := s.UncountedTerminatedPods; u != nil {
		seen := map[types.UID]bool{}
		uncounted(e, u.Succeeded, seen, p.Child("uncountedTerminatedPods").Child("succeeded"))
		uncounted(e, u.Failed, seen, p.Child("uncountedTerminatedPods").Child("failed"))
	}
	now, before := endOf(j), endOf(old)
	jobTimes(e, j, old, now, before, p)
	jobConditions(e, j, now, before, reset.Differ(s.FailedIndexes, was.FailedIndexes), p.Child("conditions"))
	jobCounts(e, j, old, now, now.finished() != before.finished(), p)
	jobIndexes(e, j, old, p)
}

func uncounted(e *validate.Errs, uids []types.UID, seen map[types.UID]bool, p *validate.Path) {
	for i, uid := range uids {
		if uid == "" {
			e.Invalid(p.Index(i), uid, "must not be empty")
		} else if seen[uid] {
			e.Duplicate(p.Index(i), uid)
		}
		seen[uid] = true
	}
}

func jobTimes(e *validate.Errs, j, old *batchv1.Job, now, before ended, p *validate.Path) {
	s, was := &j.Status, &old.Status
	started, completed := !same(s.StartTime, was.StartTime), !same(s.CompletionTime, was.CompletionTime)
	at := p.Child("completionTime")
	if completed || now.complete != before.complete {
		if s.CompletionTime != nil && !now.complete {
			e.Invalid(at, s.CompletionTime, "cannot set completionTime when there is no Complete=True condition")
		}
		if s.CompletionTime == nil && now.complete {
			e.Required(at, "completionTime is required for Complete jobs")
		}
	}
	if (started || completed) && s.StartTime != nil && s.CompletionTime != nil && s.CompletionTime.Before(s.StartTime) {
		e.Invalid(at, s.CompletionTime, "must be equal to or after `startTime`")
	}
	if completed && s.CompletionTime != nil && was.CompletionTime != nil {
		e.Invalid(at, s.CompletionTime, "field is immutable")
	}
	resumes := condition(old, batchv1.JobSuspended) == corev1.ConditionTrue && condition(j, batchv1.JobSuspended) == corev1.ConditionFalse
	if started && was.StartTime != nil && !resumes && !value(j.Spec.Suspend) {
		e.Invalid(p.Child("startTime"), s.StartTime, "field is immutable for unsuspended job once set")
	}
	neverRan := value(j.Spec.Suspend) && j.Spec.Completions != nil && *j.Spec.Completions == 0
	if (started || now.finished() != before.finished()) && s.StartTime == nil && now.finished() && !neverRan {
		e.Required(p.Child("startTime"), "startTime is required for finished job")
	}
}

func same(a, b *metav1.Time) bool {
	return a == b || a != nil && b != nil && *a == *b
}

func jobConditions(e *validate.Errs, j *batchv1.Job, now, before ended, failedIndexes bool, p *validate.Path) {
	no := func(bad bool, why string) {
		if bad {
			e.Invalid(p, field.OmitValueType{}, why)
		}
	}
	completes, fails := now.complete != before.complete, now.failed != before.failed
	no((completes || fails) && now.complete && now.failed, "cannot set Complete=True and Failed=true conditions")
	no((completes || now.failing != before.failing) && now.complete && now.failing, "cannot set Complete=True and FailureTarget=true conditions")
	no((fails || failedIndexes) && now.failed && !now.failing, "cannot set Failed=True condition without the FailureTarget=true condition")
	no((completes || now.met != before.met) && now.complete && !now.met, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition")
	no(now.met && now.failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions")
	no(now.met && now.failing, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions")
	no(j.Spec.SuccessPolicy != nil && now.complete && !now.met, "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True")
	no(before.failed && !now.failed, "cannot disable the terminal Failed=True condition")
	no(before.complete && !now.complete, "cannot disable the terminal Complete=True condition")
	no(before.failing && !now.failing, "cannot disable the terminal FailureTarget=True condition")
	no(before.met && !now.met, "cannot disable the SuccessCriteriaMet=True condition")
	no(before.complete && !before.met && now.met, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions")
}

func jobCounts(e *validate.Errs, j, old *batchv1.Job, now ended, finishes bool, p *validate.Path) {
	s, was := &j.Status, &old.Status
	if now.finished() {
		if s.Active > 0 && (finishes || s.Active != was.Active) {
			e.Invalid(p.Child("active"), s.Active, "active>0 is invalid for finished job")
		}
		if u := s.UncountedTerminatedPods; u != nil && len(u.Failed)+len(u.Succeeded) > 0 &&
			(finishes || reset.Differ(u, was.UncountedTerminatedPods)) {
			e.Invalid(p.Child("uncountedTerminatedPods"), u, "must be empty for finished job")
		}
		if value(s.Terminating) > 0 && (finishes || reset.Differ(s.Terminating, was.Terminating)) {
			e.Invalid(p.Child("terminating"), *s.Terminating, "terminating>0 is invalid for finished job")
		}
	}
	if value(s.Ready) > s.Active && (s.Active != was.Active || reset.Differ(s.Ready, was.Ready)) {
		e.Invalid(p.Child("ready"), *s.Ready, "cannot set more ready pods than active")
	}
	if s.Failed < was.Failed {
		e.Invalid(p.Child("failed"), s.Failed, "cannot decrease the failed counter")
	}
	elastic := indexed(&j.Spec) && !reset.Differ(j.Spec.Completions, j.Spec.Parallelism)
	if s.Succeeded < was.Succeeded && !elastic {
		e.Invalid(p.Child("succeeded"), s.Succeeded, "cannot decrease the succeeded counter")
	}
}

func jobIndexes(e *validate.Errs, j, old *batchv1.Job, p *validate.Path) {
	s, was := &j.Status, &old.Status
	completedNow, failedNow := s.CompletedIndexes != was.CompletedIndexes, reset.Differ(s.FailedIndexes, was.FailedIndexes)
	completedAt, failedAt := p.Child("completedIndexes"), p.Child("failedIndexes")
	if completedNow && s.CompletedIndexes != "" && !indexed(&j.Spec) {
		e.Invalid(completedAt, s.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode")
	}
	if failedNow && s.FailedIndexes != nil && j.Spec.BackoffLimitPerIndex == nil {
		e.Invalid(failedAt, *s.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null")
	}
	if j.Spec.Completions == nil {
		return
	}
	completed, err := parseIndexes(s.CompletedIndexes, *j.Spec.Completions)
	if err != nil && completedNow {
		e.Invalid(completedAt, s.CompletedIndexes, "error parsing completedIndexes: "+err.Error())
	}
	if s.FailedIndexes == nil {
		return
	}
	failed, err := parseIndexes(*s.FailedIndexes, *j.Spec.Completions)
	if err != nil && failedNow && j.Spec.BackoffLimitPerIndex != nil {
		e.Invalid(failedAt, *s.FailedIndexes, "error parsing failedIndexes: "+err.Error())
	}
	if i, both := overlap(completed, failed); both && (completedNow || failedNow) {
		e.Invalid(failedAt, *s.FailedIndexes, fmt.Sprintf("failedIndexes and completedIndexes overlap at index: %d", i))
	}
}
