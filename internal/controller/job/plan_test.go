package job

import (
	"fmt"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func TestIndexes(t *testing.T) {
	for text, c := range map[string]struct {
		limit   int
		again   string // as it is written
		total   int
		missing []int // the first three
	}{
		"":                {5, "", 0, []int{0, 1, 2}},
		"1,3-5,7":         {10, "1,3-5,7", 5, []int{0, 2, 6}},
		"0-3":             {4, "0-3", 4, nil},
		"1,2,3":           {10, "1-3", 3, []int{0, 4, 5}},
		"1,2":             {3, "1,2", 2, []int{0}},
		"2-9":             {5, "2-4", 3, []int{0, 1}},
		"7":               {5, "", 0, []int{0, 1, 2}},
		"1,x,3":           {5, "1,3", 2, []int{0, 2, 4}},
		"0,2,4,6,8,10-12": {13, "0,2,4,6,8,10-12", 8, []int{1, 3, 5}},
	} {
		x := parseIndexes(text, c.limit)
		if x.String() != c.again || x.total() != c.total || !slices.Equal(x.missing(3, c.limit), c.missing) {
			t.Errorf("%q below %d: %s, %d, missing %v", text, c.limit, x, x.total(), x.missing(3, c.limit))
		}
		for i := range c.limit {
			if x.has(i) == slices.Contains(x.missing(c.limit, c.limit), i) {
				t.Errorf("%q: %d is there and missing, or neither", text, i)
			}
		}
	}
}

// TestDecide: what one pass creates, removes, counts and says of the job.
func TestDecide(t *testing.T) {
	now := time.Unix(100_000, 0)
	pods := func(phase corev1.PodPhase, n int) (all []*corev1.Pod) {
		for i := range n {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(fmt.Sprint(phase, i)), Finalizers: []string{batchv1.JobTrackingFinalizer}}, Status: corev1.PodStatus{Phase: phase}}
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}}
			all = append(all, p)
		}
		return all
	}
	running, good, bad := corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed
	for what, c := range map[string]struct {
		pods            []*corev1.Pod
		change          func(*batchv1.JobSpec)
		before          batchv1.JobStatus
		create, remove  int
		release         int
		says            batchv1.JobConditionType // that it has now
		succeeded, fail int                      // that are held as uncounted
	}{
		"begins":                  {create: 2},
		"two run":                 {pods: pods(running, 2)},
		"one has succeeded":       {pods: append(pods(running, 1), pods(good, 1)...), create: 1, release: 1, succeeded: 1},
		"no more than are needed": {pods: append(pods(running, 1), pods(good, 2)...), release: 2, succeeded: 2},
		"all have succeeded":      {pods: pods(good, 3), release: 3, succeeded: 3, says: batchv1.JobSuccessCriteriaMet},
		"counted and let go":      {before: batchv1.JobStatus{Succeeded: 3, Conditions: []batchv1.JobCondition{{Type: batchv1.JobSuccessCriteriaMet, Status: corev1.ConditionTrue}}}, says: batchv1.JobComplete},
		"one has failed":          {pods: append(pods(running, 1), pods(bad, 1)...), create: 1, release: 1, fail: 1},
		"too many have failed":    {pods: append(pods(running, 1), pods(bad, 2)...), remove: 1, release: 3, fail: 3, says: batchv1.JobFailureTarget},
		"is suspended":            {pods: pods(running, 2), change: func(s *batchv1.JobSpec) { s.Suspend = ptr.To(true) }, remove: 2, says: batchv1.JobSuspended},
		"fewer at a time":         {pods: pods(running, 2), change: func(s *batchv1.JobSpec) { s.Parallelism = ptr.To[int32](1) }, remove: 1},
		"its time is up":          {pods: pods(running, 2), change: func(s *batchv1.JobSpec) { s.ActiveDeadlineSeconds = ptr.To[int64](10) }, before: batchv1.JobStatus{StartTime: ptr.To(metav1.NewTime(now.Add(-11 * time.Second)))}, remove: 2, release: 2, fail: 2, says: batchv1.JobFailureTarget},
	} {
		j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", UID: "j"}, Spec: batchv1.JobSpec{Completions: ptr.To[int32](3), Parallelism: ptr.To[int32](2), BackoffLimit: ptr.To[int32](1)}, Status: c.before}
		if c.change != nil {
			c.change(&j.Spec)
		}
		p := decide(state{job: j, pods: c.pods, now: now})
		u := p.status.UncountedTerminatedPods
		if len(p.create) != c.create || len(p.remove) != c.remove || len(p.release) != c.release || len(u.Succeeded) != c.succeeded || len(u.Failed) != c.fail {
			t.Errorf("%s: creates %d, removes %d, lets %d go, holds %d and %d", what, len(p.create), len(p.remove), len(p.release), len(u.Succeeded), len(u.Failed))
		}
		if c.says != "" && find(&p.status, c.says) == nil || c.says == "" && len(p.status.Conditions) > 0 {
			t.Errorf("%s: %+v", what, p.status.Conditions)
		}
	}
}
