package cronjob

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with faults: one job for each time, none twice; the status follows,
// and is put right when somebody else writes it; histories stay short.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	ctl := New(c.Informers, controllertest.Log())
	var ahead atomic.Int64 // of the real time
	ctl.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	c.Run(ctl)
	controllertest.Create(c, &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"}, Spec: batchv1.CronJobSpec{
		Schedule: "0 0 1 * *", ConcurrencyPolicy: batchv1.ReplaceConcurrent, SuccessfulJobsHistoryLimit: ptr.To[int32](1), FailedJobsHistoryLimit: ptr.To[int32](1),
		JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}},
		}}}},
	}})
	cron := func() *batchv1.CronJob { return controllertest.Get[*batchv1.CronJob](c, "default", "a") }
	jobs := func() []*batchv1.Job {
		return slices.DeleteFunc(controllertest.List[*batchv1.Job](c), func(j *batchv1.Job) bool { return j.DeletionTimestamp != nil })
	}
	month := func() { // passes, of which the controller is told
		ahead.Add(int64(31 * 24 * time.Hour))
		controllertest.Change(c, "default", "a", "", func(cj *batchv1.CronJob) {
			cj.Spec.StartingDeadlineSeconds = ptr.To(ptr.Deref(cj.Spec.StartingDeadlineSeconds, 32*24*3600) + 1)
		})
	}
	runs := func(n int) func() bool { // one runs, of n that are there
		return func() bool {
			st := cron().Status
			all := jobs()
			return len(all) == n && len(st.Active) == 1 && st.LastScheduleTime != nil && slices.ContainsFunc(all, func(j *batchv1.Job) bool {
				return j.UID == st.Active[0].UID && ended(j) == "" && j.Name == jobName(cron(), st.LastScheduleTime.Time)
			})
		}
	}
	c.Settles("not yet", func() bool { return len(jobs()) == 0 && cron().Status.LastScheduleTime == nil })
	month()
	c.Settles("one runs", runs(1))
	controllertest.Change(c, "default", "a", "status", func(cj *batchv1.CronJob) { cj.Status = batchv1.CronJobStatus{} })
	c.Settles("it is known again", runs(1))
	before := jobs()[0].UID
	month()
	c.Settles("another runs in its place", func() bool { return runs(1)() && jobs()[0].UID != before })
	end := func() {
		controllertest.Change(c, "default", jobs()[len(jobs())-1].Name, "status", func(j *batchv1.Job) {
			now := metav1.Now()
			j.Status.StartTime, j.Status.CompletionTime = &now, &now
			for _, what := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobComplete} {
				j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: what, Status: corev1.ConditionTrue, LastTransitionTime: now})
			}
		})
	}
	done := func() bool {
		st := cron().Status
		return len(jobs()) == 1 && len(st.Active) == 0 && st.LastSuccessfulTime != nil
	}
	end()
	c.Settles("it has succeeded", done)
	month()
	c.Settles("the next runs beside what is kept", runs(2))
	end()
	c.Settles("only the last is kept", done)
	controllertest.Change(c, "default", "a", "", func(cj *batchv1.CronJob) { cj.Spec.Suspend = ptr.To(true) })
	month()
	c.Settles("none runs while it is suspended", done)
}
