// Package batch describes Job and CronJob of batch/v1.
package batch

import (
	"fmt"
	"maps"
	"math"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/core"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/index"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

// Kinds of the group.
func Kinds() []*api.Kind { return []*api.Kind{cronJob(), job()} }

// The labels of a job's pods before they had a prefix; both are kept.
const (
	legacyNameLabel = "job-name"
	legacyUIDLabel  = "controller-uid"
)

func job() *api.Kind {
	return &api.Kind{
		GroupVersionKind: batchv1.SchemeGroupVersion.WithKind("Job"),
		Resource:         "jobs",
		Categories:       []string{"all"},
		New:              func() api.Object { return &batchv1.Job{} },
		NewList:          func() runtime.Object { return &batchv1.JobList{} },
		Default:          api.Of(defaultJob),
		Reset:            api.Resets(resetJob),
		Validate:         api.Validates(validateJob),
		Warn:             api.Warns(warnJob),
		Columns: append([]metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Status", "string", "Status of the job."),
			table.Col("Completions", "string", batchv1.JobStatus{}.SwaggerDoc()["succeeded"]),
			table.Col("Duration", "string", "Time required to complete the job."),
			table.Age(),
		}, append(table.Containers(), table.Wide("Selector", "string", batchv1.JobSpec{}.SwaggerDoc()["selector"]))...),
		Row: api.Rows(func(j *batchv1.Job) []any {
			names, images := table.ContainerCells(j.Spec.Template.Spec.Containers)
			return []any{j.Name, statusCell(j), completionsCell(j), durationCell(j), table.AgeOf(j),
				names, images, metav1.FormatLabelSelector(j.Spec.Selector)}
		}),
		Fields: api.FieldsOf(func(j *batchv1.Job) fields.Set {
			return fields.Set{"status.successful": strconv.Itoa(int(j.Status.Succeeded))}
		}),
		Indexes:      index.ByOwner(),
		Subresources: []api.Subresource{{Name: "status"}},
		Orphan:       true,
	}
}

func statusCell(j *batchv1.Job) string {
	is := func(t batchv1.JobConditionType) bool { return condition(j, t) == corev1.ConditionTrue }
	switch {
	case is(batchv1.JobComplete):
		return "Complete"
	case is(batchv1.JobFailed):
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case is(batchv1.JobSuspended):
		return "Suspended"
	case is(batchv1.JobFailureTarget):
		return "FailureTarget"
	case is(batchv1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	}
	return "Running"
}

func completionsCell(j *batchv1.Job) string {
	if n := j.Spec.Completions; n != nil {
		return fmt.Sprintf("%d/%d", j.Status.Succeeded, *n)
	}
	if n := j.Spec.Parallelism; n != nil && *n > 1 {
		return fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, *n)
	}
	return fmt.Sprintf("%d/1", j.Status.Succeeded)
}

func durationCell(j *batchv1.Job) string {
	start, end := j.Status.StartTime, j.Status.CompletionTime
	switch {
	case start == nil:
		return ""
	case end == nil:
		return duration.HumanDuration(time.Since(start.Time))
	}
	return duration.HumanDuration(end.Sub(start.Time))
}

// condition is the status of a condition, "" if the job has none of the type.
func condition(j *batchv1.Job, t batchv1.JobConditionType) corev1.ConditionStatus {
	for i := range j.Status.Conditions {
		if c := &j.Status.Conditions[i]; c.Type == t {
			return c.Status
		}
	}
	return ""
}

func defaultJob(j *batchv1.Job) {
	s := &j.Spec
	if s.Completions == nil && s.Parallelism == nil {
		defaults.Ptr(&s.Completions, 1)
	}
	defaults.Ptr(&s.Parallelism, 1)
	if s.BackoffLimitPerIndex != nil {
		defaults.Ptr(&s.BackoffLimit, math.MaxInt32)
	}
	defaults.Ptr(&s.BackoffLimit, 6)
	if len(j.Labels) == 0 && s.Template.Labels != nil {
		j.Labels = maps.Clone(s.Template.Labels)
	}
	defaults.Ptr(&s.CompletionMode, batchv1.NonIndexedCompletion)
	defaults.Ptr(&s.Suspend, false)
	if s.PodFailurePolicy != nil {
		defaults.Ptr(&s.PodReplacementPolicy, batchv1.Failed)
	}
	defaults.Ptr(&s.PodReplacementPolicy, batchv1.TerminatingOrFailed)
	defaults.Ptr(&s.ManualSelector, false)
	defaultTemplate(s)
}

// defaultTemplate has the defaults of a job's parts, which jobs made by a
// CronJob share.
func defaultTemplate(s *batchv1.JobSpec) {
	if p := s.PodFailurePolicy; p != nil {
		for i := range p.Rules {
			for c := range p.Rules[i].OnPodConditions {
				defaults.Zero(&p.Rules[i].OnPodConditions[c].Status, corev1.ConditionTrue)
			}
		}
	}
	core.DefaultPodTemplate(&s.Template)
}

func resetJob(j, old *batchv1.Job, sub string) {
	if old == nil && (j.Spec.ManualSelector == nil || !*j.Spec.ManualSelector) {
		generateSelector(j)
	}
	reset.SpecStatus(func(j *batchv1.Job) (*batchv1.JobSpec, *batchv1.JobStatus) { return &j.Spec, &j.Status })(j, orNil(old), sub)
}

func orNil(old *batchv1.Job) api.Object {
	if old == nil {
		return nil
	}
	return old
}

// generateSelector makes a selector that no other job has, from the UID. The
// job must have its name and UID by now.
func generateSelector(j *batchv1.Job) {
	if j.Spec.Template.Labels == nil {
		j.Spec.Template.Labels = map[string]string{}
	}
	labels := j.Spec.Template.Labels
	setMissing := func(m map[string]string, key, value string) {
		if _, ok := m[key]; !ok {
			m[key] = value
		}
	}
	setMissing(labels, legacyNameLabel, j.Name)
	setMissing(labels, batchv1.JobNameLabel, j.Name)
	setMissing(labels, legacyUIDLabel, string(j.UID))
	setMissing(labels, batchv1.ControllerUidLabel, string(j.UID))
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	if j.Spec.Selector.MatchLabels == nil {
		j.Spec.Selector.MatchLabels = map[string]string{}
	}
	setMissing(j.Spec.Selector.MatchLabels, batchv1.ControllerUidLabel, string(j.UID))
}

func warnJob(j, old *batchv1.Job) []string {
	var warnings []string
	if old == nil {
		warnings = longName(j.Name)
	}
	if old == nil || j.Generation != old.Generation {
		warnings = append(warnings, warnSpec(&j.Spec, field.NewPath("spec"))...)
	}
	return warnings
}

func longName(name string) []string {
	if why := validate.Label(name); why != nil {
		return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", why)}
	}
	return nil
}

// warnSpec returns the warnings of what jobs and job templates have in common.
func warnSpec(s *batchv1.JobSpec, p *field.Path) []string {
	var warnings []string
	if indexed(s) && value(s.Completions) > highCompletions && value(s.Parallelism) > highParallelism {
		warnings = append(warnings, p.String()+": In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail")
	}
	return append(warnings, core.WarnPodTemplate(&s.Template, p.Child("template"))...)
}

func indexed(s *batchv1.JobSpec) bool {
	return s.CompletionMode != nil && *s.CompletionMode == batchv1.IndexedCompletion
}

// value of an optional field, or its type's zero.
func value[T any](v *T) T {
	if v == nil {
		var zero T
		return zero
	}
	return *v
}
