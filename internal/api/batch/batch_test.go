package batch

import (
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func text(errs field.ErrorList) string {
	var all []string
	for _, e := range errs {
		all = append(all, e.Error())
	}
	return strings.Join(all, "\n")
}

func someJob() *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "pi", Namespace: "ns", UID: "u"}}
	j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	j.Spec.Template.Spec.Containers = []corev1.Container{{Name: "pi", Image: "pi"}}
	job().Default(j)
	job().Reset(j, nil, "")
	return j
}

func TestJobSelectsItsOwnPods(t *testing.T) {
	j := someJob()
	if j.Spec.Selector.MatchLabels["batch.kubernetes.io/controller-uid"] != "u" || j.Spec.Template.Labels["job-name"] != "pi" || *j.Spec.BackoffLimit != 6 {
		t.Errorf("%+v", j.Spec)
	}
	if got := text(job().Validate(j, nil, "")); got != "" {
		t.Error(got)
	}
	if row := job().Row(j); row[1] != "Running" || row[2] != "0/1" || row[3] != "" {
		t.Errorf("%v", row)
	}
}

func TestJobRules(t *testing.T) {
	for _, c := range []struct {
		change func(*batchv1.Job)
		want   string
	}{
		{func(j *batchv1.Job) { j.Spec.Template.Spec.RestartPolicy = "Always" }, `spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`},
		{func(j *batchv1.Job) { n := int32(1); j.Spec.BackoffLimitPerIndex = &n }, "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"},
		{func(j *batchv1.Job) {
			j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: "Ignore", OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: "In", Values: []int32{3, 1}}}}}
			r := batchv1.Failed
			j.Spec.PodReplacementPolicy = &r
		}, "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [3,1]: must be ordered"},
		{func(j *batchv1.Job) { delete(j.Spec.Template.Labels, "job-name") }, "spec.template.metadata.labels[job-name]: Required value: must be 'pi'"},
	} {
		j := someJob()
		c.change(j)
		if got := text(job().Validate(j, nil, "")); got != c.want {
			t.Errorf("\n got %s\nwant %s", got, c.want)
		}
	}
}

func TestJobTemplateMayChangeWhileSuspended(t *testing.T) {
	old := someJob()
	now := old.DeepCopy()
	now.Spec.Template.Spec.NodeSelector = map[string]string{"gpu": "yes"}
	if got := text(job().Validate(now, old, "")); !strings.Contains(got, "spec.template") || !strings.Contains(got, "field is immutable") {
		t.Error(got)
	}
	suspended := true
	old.Spec.Suspend, now.Spec.Suspend = &suspended, &suspended
	if got := text(job().Validate(now, old, "")); got != "" {
		t.Error(got)
	}
}

func TestJobStatus(t *testing.T) {
	old := someJob()
	now := old.DeepCopy()
	now.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: "True"}}
	got := text(job().Validate(now, old, "status"))
	for _, want := range []string{"completionTime is required for Complete jobs", "startTime is required for finished job",
		"cannot set Complete=True condition without the SuccessCriteriaMet=true condition"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
	stamp := metav1.Now()
	now.Status.StartTime, now.Status.CompletionTime = &stamp, &stamp
	now.Status.Conditions = append(now.Status.Conditions, batchv1.JobCondition{Type: batchv1.JobSuccessCriteriaMet, Status: "True"})
	if got := text(job().Validate(now, old, "status")); got != "" {
		t.Error(got)
	}
}

func TestIndexes(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "1,3-5": "", "5-3": "non-increasing order, previous: 5, current: 3", "1-2-3": "at most two parts",
		"x": `cannot convert string to integer for index: "x"`, "9": `too large index: "9"`, "3,3": "non-increasing order, previous: 3, current: 3",
	} {
		_, err := parseIndexes(in, 9)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", in, err)
		}
	}
	a, _ := parseIndexes("1,3-5", 9)
	b, _ := parseIndexes("2,5-7", 9)
	if i, both := overlap(a, b); !both || i != 5 {
		t.Errorf("%d %v", i, both)
	}
}

func TestCronJobs(t *testing.T) {
	k := cronJob()
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "nightly"}}
	c.Spec.JobTemplate.Spec = someJob().Spec
	c.Spec.JobTemplate.Spec.Selector, c.Spec.JobTemplate.Spec.ManualSelector = nil, nil
	k.Default(c)
	for schedule, want := range map[string]string{
		"*/5 * * * *": "", "@daily": "",
		"* * *":            "spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]",
		"TZ=UTC 0 0 * * *": "spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
		"":                 "spec.schedule: Required value",
	} {
		c.Spec.Schedule = schedule
		if got := text(k.Validate(c, nil, "")); got != want {
			t.Errorf("%q: %s", schedule, got)
		}
	}
	c.Spec.Schedule = "@daily"
	for zone, good := range map[string]bool{"Etc/UTC": true, "../x": false, "local": false, "": false} {
		c.Spec.TimeZone = &zone
		if got := text(k.Validate(c, nil, "")); (got == "") != good {
			t.Errorf("%q: %s", zone, got)
		}
	}
}

func FuzzSchedule(f *testing.F) {
	f.Add("* * * * *")
	f.Add("TZ=")
	f.Fuzz(func(t *testing.T, s string) { _, _ = ParseSchedule(s) })
}
