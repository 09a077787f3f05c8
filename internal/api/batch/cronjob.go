package batch

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func cronJob() *api.Kind {
	return &api.Kind{
		GroupVersionKind: batchv1.SchemeGroupVersion.WithKind("CronJob"),
		Resource:         "cronjobs",
		ShortNames:       []string{"cj"},
		Categories:       []string{"all"},
		New:              func() api.Object { return &batchv1.CronJob{} },
		NewList:          func() runtime.Object { return &batchv1.CronJobList{} },
		Default:          api.Of(defaultCronJob),
		Reset: reset.SpecStatus(func(c *batchv1.CronJob) (*batchv1.CronJobSpec, *batchv1.CronJobStatus) {
			return &c.Spec, &c.Status
		}),
		Validate: api.Validates(validateCronJob),
		Warn:     api.Warns(warnCronJob),
		Columns: append([]metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Schedule", "string", batchv1.CronJobSpec{}.SwaggerDoc()["schedule"]),
			table.Col("Timezone", "string", batchv1.CronJobSpec{}.SwaggerDoc()["timeZone"]),
			table.Col("Suspend", "boolean", batchv1.CronJobSpec{}.SwaggerDoc()["suspend"]),
			table.Col("Active", "integer", batchv1.CronJobStatus{}.SwaggerDoc()["active"]),
			table.Col("Last Schedule", "string", batchv1.CronJobStatus{}.SwaggerDoc()["lastScheduleTime"]),
			table.Age(),
		}, append(table.Containers(), table.Wide("Selector", "string", batchv1.JobSpec{}.SwaggerDoc()["selector"]))...),
		Row: api.Rows(func(c *batchv1.CronJob) []any {
			last, zone, suspend := "<none>", "<none>", "False"
			if c.Status.LastScheduleTime != nil {
				last = table.Since(*c.Status.LastScheduleTime)
			}
			if c.Spec.TimeZone != nil {
				zone = *c.Spec.TimeZone
			}
			if c.Spec.Suspend == nil {
				suspend = "<unset>"
			} else if *c.Spec.Suspend {
				suspend = "True"
			}
			job := &c.Spec.JobTemplate.Spec
			names, images := table.ContainerCells(job.Template.Spec.Containers)
			return []any{c.Name, c.Spec.Schedule, zone, suspend, int64(len(c.Status.Active)), last, table.AgeOf(c),
				names, images, metav1.FormatLabelSelector(job.Selector)}
		}),
		Subresources: []api.Subresource{{Name: "status"}},
	}
}

func defaultCronJob(c *batchv1.CronJob) {
	defaults.Zero(&c.Spec.ConcurrencyPolicy, batchv1.AllowConcurrent)
	defaults.Ptr(&c.Spec.Suspend, false)
	defaults.Ptr(&c.Spec.SuccessfulJobsHistoryLimit, 3)
	defaults.Ptr(&c.Spec.FailedJobsHistoryLimit, 1)
	defaultTemplate(&c.Spec.JobTemplate.Spec)
}

func validateCronJob(c, old *batchv1.CronJob, sub string) field.ErrorList {
	const maxName = 52 // room for what the controller appends to jobs' names
	var e validate.Errs
	if sub == "status" {
		return nil
	}
	p, s := validate.Root("spec"), &c.Spec
	if s.Schedule == "" {
		e.Required(p.Child("schedule"), "")
	} else {
		schedule(&e, s, old != nil && strings.Contains(old.Spec.Schedule, "TZ"), p.Child("schedule"))
	}
	optional(&e, s.StartingDeadlineSeconds, p.Child("startingDeadlineSeconds"))
	if s.TimeZone != nil && (old == nil || old.Spec.TimeZone == nil || *old.Spec.TimeZone != *s.TimeZone) {
		timeZone(&e, *s.TimeZone, p.Child("timeZone"))
	}
	validate.RequiredOneOf(&e, p.Child("concurrencyPolicy"), s.ConcurrencyPolicy,
		batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)

	at, job := p.Child("jobTemplate").Child("spec"), &s.JobTemplate.Spec
	var was *batchv1.JobSpec
	if old != nil {
		was = &old.Spec.JobTemplate.Spec
	}
	jobSpec(&e, job, was, at)
	if job.Selector != nil {
		e.Invalid(at.Child("selector"), job.Selector, "`selector` will be auto-generated")
	}
	if value(job.ManualSelector) {
		validate.NotSupported(&e, at.Child("manualSelector"), job.ManualSelector, "nil", "false")
	}
	optional(&e, s.SuccessfulJobsHistoryLimit, p.Child("successfulJobsHistoryLimit"))
	optional(&e, s.FailedJobsHistoryLimit, p.Child("failedJobsHistoryLimit"))
	if old == nil && len(c.Name) > maxName {
		e.Invalid(validate.Root("metadata").Child("name"), c.Name, "must be no more than 52 characters")
	}
	return e.List()
}

func schedule(e *validate.Errs, s *batchv1.CronJobSpec, zoneAllowed bool, p *validate.Path) {
	if _, err := ParseSchedule(s.Schedule); err != nil {
		e.Invalid(p, s.Schedule, err.Error())
	}
	if !strings.Contains(s.Schedule, "TZ") {
		return
	}
	if !zoneAllowed {
		e.Invalid(p, s.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")
	} else if s.TimeZone != nil {
		e.Invalid(p, s.Schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule")
	}
}

// ParseSchedule reads a schedule in the form of crontab(5), with @hourly and the
// like. The parser panics at some of what it cannot read: that is an error here.
func ParseSchedule(text string) (s cron.Schedule, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("invalid schedule format: %v", r)
		}
	}()
	return cron.ParseStandard(text)
}

func timeZone(e *validate.Errs, zone string, p *validate.Path) {
	if zone == "" {
		e.Invalid(p, zone, "timeZone must be nil or non-empty string")
		return
	}
	// The characters of the IANA database's names: LoadLocation opens a file.
	part := regexp.MustCompile(`^[A-Za-z\.\-_0-9+]{1,14}$`)
	for name := range strings.SplitSeq(zone, "/") {
		if name == "." || name == ".." || strings.HasPrefix(name, "-") || !part.MatchString(name) {
			e.Invalid(p, zone, "unknown time zone "+zone)
			return
		}
	}
	if strings.EqualFold(zone, "Local") {
		e.Invalid(p, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")
	}
	if _, err := time.LoadLocation(zone); err != nil {
		e.Invalid(p, zone, err.Error())
	}
}

func warnCronJob(c, old *batchv1.CronJob) []string {
	var warnings []string
	if old == nil {
		warnings = longName(c.Name)
	}
	if old == nil || c.Generation != old.Generation {
		warnings = append(warnings, warnSpec(&c.Spec.JobTemplate.Spec, field.NewPath("spec", "jobTemplate", "spec"))...)
	}
	if old != nil && strings.Contains(c.Spec.Schedule, "TZ") {
		warnings = append(warnings, "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details")
	}
	return warnings
}
