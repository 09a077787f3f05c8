package job_test

import (
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/controller/job"
	"github.com/proa-dev/proa/test/controllertest"
)

func sample(name string, change func(*batchv1.JobSpec)) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: batchv1.JobSpec{
		Completions: ptr.To[int32](3), Parallelism: ptr.To[int32](2),
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}},
	}}
	change(&j.Spec)
	return j
}

func ended(j *batchv1.Job, t batchv1.JobConditionType) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == t && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

// TestConverges with every fifth write failing.
func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	indexed := ptr.To(batchv1.IndexedCompletion)
	c.Kubelet(func(p *corev1.Pod) corev1.PodPhase {
		switch {
		case p.Labels["job-name"] == "bad", p.Labels["job-name"] == "some" && p.Annotations[batchv1.JobCompletionIndexAnnotation] == "1":
			return corev1.PodFailed
		case p.Labels["job-name"] == "early" && p.Annotations[batchv1.JobCompletionIndexAnnotation] != "0":
			return corev1.PodRunning
		}
		return corev1.PodSucceeded
	})
	c.Run(job.New(c.Informers, controllertest.Log()))
	controllertest.Create(c, sample("plain", func(*batchv1.JobSpec) {}))
	controllertest.Create(c, sample("bad", func(s *batchv1.JobSpec) { s.BackoffLimit = ptr.To[int32](0) }))
	controllertest.Create(c, sample("some", func(s *batchv1.JobSpec) {
		s.CompletionMode, s.BackoffLimitPerIndex = indexed, ptr.To[int32](0)
	}))
	controllertest.Create(c, sample("early", func(s *batchv1.JobSpec) {
		s.CompletionMode, s.SuccessPolicy = indexed, &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: ptr.To("0")}}}
	}))
	job := func(name string) *batchv1.Job { return controllertest.Get[*batchv1.Job](c, "default", name) }
	c.Until("all ended as they should", func() bool {
		return ended(job("plain"), batchv1.JobComplete) && ended(job("bad"), batchv1.JobFailed) &&
			ended(job("some"), batchv1.JobFailed) && ended(job("early"), batchv1.JobComplete)
	})
	if st := job("plain").Status; st.Succeeded != 3 || st.Failed != 0 || st.Active != 0 || st.CompletionTime == nil {
		t.Errorf("plain: %+v", st)
	}
	if st := job("some").Status; st.CompletedIndexes != "0,2" || ptr.Deref(st.FailedIndexes, "") != "1" || st.Failed != 1 {
		t.Errorf("some: %+v", st)
	}
	if st := job("early").Status; st.CompletedIndexes != "0" || st.Succeeded != 1 || st.Failed != 0 {
		t.Errorf("early: %+v", st)
	}
	c.Until("no pod is held", func() bool {
		for _, p := range controllertest.List[*corev1.Pod](c) {
			if len(p.Finalizers) > 0 {
				return false
			}
		}
		return true
	})
}

// TestSuspend and resume, then delete with what it owns.
func TestSuspend(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Kubelet(nil)
	c.Run(job.New(c.Informers, controllertest.Log()))
	controllertest.Create(c, sample("a", func(*batchv1.JobSpec) {}))
	active := func(n int32) func() bool {
		return func() bool {
			j := controllertest.Get[*batchv1.Job](c, "default", "a")
			return j.Status.Active == n && ptr.Deref(j.Status.Ready, -1) == n && len(controllertest.List[*corev1.Pod](c)) == int(n)
		}
	}
	c.Settles("two active", active(2))
	controllertest.Change(c, "default", "a", "status", func(j *batchv1.Job) { j.Status.Active, j.Status.Ready = 0, nil })
	c.Settles("two active, whatever somebody says", active(2))
	controllertest.Change(c, "default", "a", "", func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(true) })
	c.Until("none active", active(0))
	if j := controllertest.Get[*batchv1.Job](c, "default", "a"); !ended(j, batchv1.JobSuspended) || j.Status.Failed != 0 {
		t.Errorf("suspended: %+v", j.Status)
	}
	controllertest.Change(c, "default", "a", "", func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(false) })
	c.Settles("two active again", active(2))
}
