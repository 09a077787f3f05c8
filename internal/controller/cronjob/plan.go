package cronjob

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// delta is how long after its time a job is looked for, so that clocks that
// differ a little do not make it too early.
const delta = 100 * time.Millisecond

// plan is one pass.
type plan struct {
	status  batchv1.CronJobStatus // before a job is made
	events  []note
	history []*batchv1.Job // beyond the limits
	replace []*batchv1.Job // running ones that give way
	due     *time.Time     // a job is to be made for this time
	again   time.Duration
}

type note struct{ kind, reason, message string }

// decide what to do about a CronJob. jobs are those that it controls; all says
// by name which jobs of its namespace there are.
func decide(cj *batchv1.CronJob, jobs []*batchv1.Job, now time.Time) plan {
	p := plan{status: *cj.Status.DeepCopy()}
	p.observe(cj, jobs)
	p.history = append(beyond(jobs, batchv1.JobComplete, cj.Spec.SuccessfulJobsHistoryLimit), beyond(jobs, batchv1.JobFailed, cj.Spec.FailedJobsHistoryLimit)...)
	if cj.DeletionTimestamp != nil {
		return p
	}
	if zone := ptr.Deref(cj.Spec.TimeZone, ""); zone != "" {
		if _, err := time.LoadLocation(zone); err != nil {
			p.warn("UnknownTimeZone", "invalid timeZone: %q: %s", zone, err)
			return p
		}
	}
	if ptr.Deref(cj.Spec.Suspend, false) {
		return p
	}
	sched, err := parse(cj)
	if err != nil {
		p.warn("UnparseableSchedule", "unparseable schedule: %q : %s", cj.Spec.Schedule, err)
		return p
	}
	due, many, err := latest(cj, sched, now, true)
	if err != nil {
		p.warn("InvalidSchedule", "invalid schedule: %s : %s", cj.Spec.Schedule, err)
		return p
	}
	p.again = next(cj, sched, now)
	if due == nil {
		return p
	}
	if many {
		p.warn("TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew")
	}
	if d := cj.Spec.StartingDeadlineSeconds; d != nil && due.Add(time.Duration(*d)*time.Second).Before(now) {
		p.warn("MissSchedule", "Missed scheduled time to start a job: %s", due.UTC().Format(time.RFC1123Z))
		return p
	}
	running := slices.ContainsFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.Name == jobName(cj, *due) })
	if running || cj.Status.LastScheduleTime.Equal(&metav1.Time{Time: *due}) {
		return p
	}
	if len(p.status.Active) > 0 {
		switch cj.Spec.ConcurrencyPolicy {
		case batchv1.ForbidConcurrent:
			p.note("JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
			return p
		case batchv1.ReplaceConcurrent:
			for _, j := range jobs {
				if slices.ContainsFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.UID == j.UID }) {
					p.replace = append(p.replace, j)
				}
			}
			p.status.Active = nil
		}
	}
	p.due = due
	return p
}

func (p *plan) note(reason, format string, args ...any) {
	p.events = append(p.events, note{corev1.EventTypeNormal, reason, fmt.Sprintf(format, args...)})
}

func (p *plan) warn(reason, format string, args ...any) {
	p.events = append(p.events, note{corev1.EventTypeWarning, reason, fmt.Sprintf(format, args...)})
}

// observe which jobs run and when one has succeeded last.
func (p *plan) observe(cj *batchv1.CronJob, jobs []*batchv1.Job) {
	byUID := map[types.UID]*batchv1.Job{}
	for _, j := range jobs {
		byUID[j.UID] = j
		active := slices.ContainsFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.UID == j.UID })
		end := ended(j)
		if end == "" {
			if !active && p.status.LastScheduleTime != nil && j.Name == jobName(cj, p.status.LastScheduleTime.Time) {
				p.status.Active = append(p.status.Active, refTo(j)) // made, but the note of it was lost
			} else if !active {
				p.warn("UnexpectedJob", "Saw a job that the controller did not create or forgot: %s", j.Name)
			}
			continue
		}
		if active {
			p.status.Active = without(p.status.Active, j.UID)
			p.note("SawCompletedJob", "Saw completed job: %s, condition: %v", j.Name, end)
		}
		if t := j.Status.CompletionTime; end == batchv1.JobComplete && t != nil && (p.status.LastSuccessfulTime == nil || t.After(p.status.LastSuccessfulTime.Time)) {
			p.status.LastSuccessfulTime = t
		}
	}
	for _, r := range slices.Clone(p.status.Active) {
		if byUID[r.UID] == nil {
			p.status.Active = without(p.status.Active, r.UID)
			p.note("MissingJob", "Active job went missing: %v", r.Name)
		}
	}
}

func without(list []corev1.ObjectReference, uid types.UID) []corev1.ObjectReference {
	out := slices.DeleteFunc(slices.Clone(list), func(r corev1.ObjectReference) bool { return r.UID == uid })
	if len(out) == 0 {
		return nil
	}
	return out
}

func refTo(j *batchv1.Job) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "batch/v1", Kind: "Job", Namespace: j.Namespace, Name: j.Name, UID: j.UID, ResourceVersion: j.ResourceVersion}
}

// ended says how a job has ended, "" = not yet.
func ended(j *batchv1.Job) batchv1.JobConditionType {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}

// beyond are the oldest of the jobs that ended in a way, but for so many.
func beyond(jobs []*batchv1.Job, end batchv1.JobConditionType, keep *int32) []*batchv1.Job {
	if keep == nil {
		return nil
	}
	var all []*batchv1.Job
	for _, j := range jobs {
		if ended(j) == end && j.DeletionTimestamp == nil {
			all = append(all, j)
		}
	}
	slices.SortFunc(all, func(a, b *batchv1.Job) int {
		x, y := a.Status.StartTime, b.Status.StartTime
		switch {
		case x == nil && y != nil:
			return 1
		case x != nil && y == nil:
			return -1
		case x != nil && !x.Equal(y):
			return x.Compare(y.Time)
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return all[:max(0, len(all)-int(*keep))]
}

// parse the schedule in its time zone.
func parse(cj *batchv1.CronJob) (s cron.Schedule, err error) {
	defer func() { // robfig/cron panics on some prefixes
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("%v", r)
		}
	}()
	text := cj.Spec.Schedule
	if cj.Spec.TimeZone != nil {
		text = "TZ=" + *cj.Spec.TimeZone + " " + text
	}
	return cron.ParseStandard(text)
}

// latest time that is due and was not served, nil = none. Of several only the
// last counts; many says that more than a hundred were missed.
func latest(cj *batchv1.CronJob, s cron.Schedule, now time.Time, deadline bool) (due *time.Time, many bool, err error) {
	from := since(cj, now, deadline)
	first := s.Next(from)
	if first.IsZero() || now.Before(first) {
		return nil, false, nil
	}
	second := s.Next(first)
	if second.IsZero() || now.Before(second) {
		return &first, false, nil
	}
	step := int64(second.Sub(first).Round(time.Second).Seconds())
	if step < 1 {
		return nil, false, errors.New("time difference between two schedules is less than 1 second")
	}
	missed := int64(now.Sub(first).Seconds())/step + 1
	at := first
	for t := s.Next(first.Add(time.Duration(missed-2) * time.Duration(step) * time.Second)); !t.IsZero() && !t.After(now); t = s.Next(t) {
		at = t
	}
	return &at, missed > 100, nil
}

func since(cj *batchv1.CronJob, now time.Time, deadline bool) time.Time {
	from := cj.CreationTimestamp.Time
	if cj.Status.LastScheduleTime != nil {
		from = cj.Status.LastScheduleTime.Time
	}
	if deadline && cj.Spec.StartingDeadlineSeconds != nil {
		if t := now.Add(-time.Duration(*cj.Spec.StartingDeadlineSeconds) * time.Second); t.After(from) {
			from = t
		}
	}
	return from
}

// next is how long it takes until the schedule is due again.
func next(cj *batchv1.CronJob, s cron.Schedule, now time.Time) time.Duration {
	from := since(cj, now, false)
	if due, _, err := latest(cj, s, now, false); err != nil {
		from = now
	} else if due != nil {
		from = *due
	}
	t := s.Next(from)
	if t.IsZero() {
		return 0 // never
	}
	return max(t.Add(delta).Sub(now), time.Millisecond)
}

// jobName tells the time that a job is for, in minutes, so that it is made once.
func jobName(cj *batchv1.CronJob, at time.Time) string {
	return fmt.Sprintf("%s-%d", cj.Name, at.Unix()/60)
}
