package ttl

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/test/controllertest"
)

// TestConverges with faults: a job goes when its time is up, and not before it has ended.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Run(New(c.Informers, controllertest.Log()))
	for name, seconds := range map[string]int32{"now": 0, "soon": 1, "later": 1000} {
		controllertest.Create(c, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: batchv1.JobSpec{
			TTLSecondsAfterFinished: &seconds,
			Template:                corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}},
		}})
	}
	going := func(name string) bool { // it waits for its pods, of which the garbage collector takes care
		j := controllertest.Get[*batchv1.Job](c, "default", name)
		return j == nil || j.DeletionTimestamp != nil
	}
	c.Settles("none has ended", func() bool { return !going("now") && !going("soon") && !going("later") })
	end := func(name string) {
		controllertest.Change(c, "default", name, "status", func(j *batchv1.Job) {
			now := metav1.Now()
			j.Status.StartTime, j.Status.CompletionTime = &now, &now
			for _, what := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobComplete} {
				j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: what, Status: corev1.ConditionTrue, LastTransitionTime: now})
			}
		})
	}
	end("now")
	end("soon")
	end("later")
	c.Settles("two go", func() bool { return going("now") && going("soon") && !going("later") })
	controllertest.Change(c, "default", "later", "", func(j *batchv1.Job) { j.Spec.TTLSecondsAfterFinished = ptr.To[int32](0) })
	c.Settles("all go", func() bool { return going("later") })
}

func TestExpiry(t *testing.T) {
	at := metav1.NewTime(time.Unix(1000, 0))
	done := []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, LastTransitionTime: at}}
	for what, c := range map[string]struct {
		job  batchv1.Job
		want time.Time // zero = never
	}{
		"without a time":   {batchv1.Job{Status: batchv1.JobStatus{Conditions: done}}, time.Time{}},
		"not ended":        {batchv1.Job{Spec: batchv1.JobSpec{TTLSecondsAfterFinished: ptr.To[int32](5)}}, time.Time{}},
		"ended":            {batchv1.Job{Spec: batchv1.JobSpec{TTLSecondsAfterFinished: ptr.To[int32](5)}, Status: batchv1.JobStatus{Conditions: done}}, at.Add(5 * time.Second)},
		"is being deleted": {batchv1.Job{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &at}, Spec: batchv1.JobSpec{TTLSecondsAfterFinished: ptr.To[int32](5)}, Status: batchv1.JobStatus{Conditions: done}}, time.Time{}},
	} {
		got, ok := expiry(&c.job)
		if ok == c.want.IsZero() || !got.Equal(c.want) {
			t.Errorf("%s: %v %v", what, got, ok)
		}
	}
}
