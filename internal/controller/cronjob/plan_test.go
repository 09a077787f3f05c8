package cronjob

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func at(text string) time.Time {
	t, err := time.Parse("15:04:05", text)
	if err != nil {
		panic(err)
	}
	return t.AddDate(2026, 0, 0)
}

func TestDecide(t *testing.T) {
	run := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "old", UID: "1"}}
	for _, c := range []struct {
		name   string
		change func(*batchv1.CronJob)
		now    string
		due    string // "" = none
		again  time.Duration
		event  string
	}{
		{"not yet", nil, "10:00:30", "", 30*time.Second + delta, ""},
		{"due", nil, "10:01:00", "10:01:00", time.Minute + delta, ""},
		{"the last of several", nil, "10:05:30", "10:05:00", 30*time.Second + delta, ""},
		{"served", func(c *batchv1.CronJob) { c.Status.LastScheduleTime = &metav1.Time{Time: at("10:01:00")} }, "10:01:10", "", 50*time.Second + delta, ""},
		{"suspended", func(c *batchv1.CronJob) { c.Spec.Suspend = ptr.To(true) }, "10:01:00", "", 0, ""},
		{"forbidden", func(c *batchv1.CronJob) {
			c.Spec.ConcurrencyPolicy, c.Status.Active = batchv1.ForbidConcurrent, []corev1.ObjectReference{{UID: "1", Name: "old"}}
		}, "10:01:00", "", time.Minute + delta, "JobAlreadyActive"},
		{"replaces", func(c *batchv1.CronJob) {
			c.Spec.ConcurrencyPolicy, c.Status.Active = batchv1.ReplaceConcurrent, []corev1.ObjectReference{{UID: "1", Name: "old"}}
		}, "10:01:00", "10:01:00", time.Minute + delta, ""},
		{"too late", func(c *batchv1.CronJob) {
			c.Spec.StartingDeadlineSeconds, c.Spec.Schedule = ptr.To[int64](10), "0 * * * *"
		}, "11:00:30", "", 59*time.Minute + 30*time.Second + delta, ""},
		{"bad zone", func(c *batchv1.CronJob) { c.Spec.TimeZone = ptr.To("No/Where") }, "10:01:00", "", 0, "UnknownTimeZone"},
		{"zone", func(c *batchv1.CronJob) { c.Spec.TimeZone, c.Spec.Schedule = ptr.To("Asia/Kolkata"), "0 16 * * *" }, "10:31:00", "10:30:00", 23*time.Hour + 59*time.Minute + delta, ""},
		{"bad schedule", func(c *batchv1.CronJob) { c.Spec.Schedule = "x" }, "10:01:00", "", 0, "UnparseableSchedule"},
		{"many missed", nil, "14:00:00", "14:00:00", time.Minute + delta, "TooManyMissedTimes"},
		{"never", func(c *batchv1.CronJob) { c.Spec.Schedule = "0 0 31 2 *" }, "10:01:00", "", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cj := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "c", CreationTimestamp: metav1.Time{Time: at("10:00:10")}}, Spec: batchv1.CronJobSpec{Schedule: "* * * * *"}}
			if c.change != nil {
				c.change(cj)
			}
			p := decide(cj, []*batchv1.Job{run}, at(c.now))
			due := ""
			if p.due != nil {
				due = p.due.UTC().Format("15:04:05")
			}
			if due != c.due || p.again != c.again {
				t.Errorf("due %q, again in %v; want %q, %v", due, p.again, c.due, c.again)
			}
			found := c.event == ""
			for _, e := range p.events {
				found = found || e.reason == c.event
			}
			if !found {
				t.Errorf("events %v, want %s", p.events, c.event)
			}
			if replaces := len(p.replace) == 1; replaces != (c.name == "replaces") {
				t.Errorf("replaces %v", p.replace)
			}
		})
	}
}

func TestHistory(t *testing.T) {
	job := func(name string, start int, end batchv1.JobConditionType) *batchv1.Job {
		return &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: batchv1.JobStatus{
			StartTime:  &metav1.Time{Time: time.Unix(int64(start), 0)},
			Conditions: []batchv1.JobCondition{{Type: end, Status: corev1.ConditionTrue}},
		}}
	}
	jobs := []*batchv1.Job{job("c", 3, batchv1.JobComplete), job("a", 1, batchv1.JobComplete), job("f", 0, batchv1.JobFailed), job("b", 2, batchv1.JobComplete)}
	got := beyond(jobs, batchv1.JobComplete, ptr.To[int32](1))
	if len(got) != 2 || got[0].Name != "a" || got[1].Name != "b" {
		t.Errorf("%v", got)
	}
	if got := beyond(jobs, batchv1.JobFailed, ptr.To[int32](1)); len(got) != 0 {
		t.Errorf("%v", got)
	}
}
