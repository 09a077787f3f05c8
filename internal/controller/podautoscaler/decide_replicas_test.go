package podautoscaler

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// pods from a line: what each uses in thousandths ("-" = nobody knows), and its
// state: nothing = ready for long, u = unready, h = ready for a moment, s = started
// a minute ago and ready since, P = pending, F = failed, D = being deleted,
// w = never had a condition. Each requests a whole of everything, or "/REQUEST".
func pods(line string) (all []*corev1.Pod, values map[string]sample) {
	values = map[string]sample{}
	for i, word := range strings.Fields(line) {
		request := "1"
		if before, after, ok := strings.Cut(word, "/"); ok {
			word, request = before, after
		}
		state := strings.TrimLeft(word, "-0123456789")
		word = strings.TrimSuffix(word, state)
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("pod-", i), Namespace: "ns", Labels: map[string]string{"app": "x"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: now.Add(-time.Hour)}, Conditions: []corev1.PodCondition{
				{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
				{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))},
			}},
		}
		if request != "none" {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse(request), "memory": resource.MustParse(request)}
		}
		ready := &p.Status.Conditions[1]
		switch state {
		case "u": // it has never been ready
			ready.Status = corev1.ConditionFalse
		case "h":
			p.Status.StartTime = &metav1.Time{Time: now.Add(-time.Minute)}
			ready.LastTransitionTime = metav1.NewTime(now.Add(-30 * time.Second))
		case "s":
			p.Status.StartTime = &metav1.Time{Time: now.Add(-2 * time.Minute)}
			ready.LastTransitionTime = metav1.NewTime(now.Add(-100 * time.Second))
		case "P":
			p.Status.Phase, p.Status.Conditions = corev1.PodPending, nil
		case "F":
			p.Status.Phase = corev1.PodFailed
		case "D":
			p.DeletionTimestamp = &metav1.Time{Time: now}
		case "w":
			p.Status.Conditions = nil
		}
		all = append(all, p)
		if n, err := strconv.ParseInt(word, 10, 64); err == nil {
			values[p.Name] = sample{at: now, window: time.Minute, value: n}
		}
	}
	return all, values
}

// snap is a snapshot of an autoscaler whose target has these pods.
func snap(replicas int32, line string) (*snapshot, map[string]sample) {
	all, values := pods(line)
	return &snapshot{
		Options:  Defaults(),
		scaler:   &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "hpa"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MaxReplicas: 100}},
		scale:    &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: replicas}, Status: autoscalingv1.ScaleStatus{Replicas: replicas, Selector: "app=x"}},
		selector: labels.Everything(), pods: all, rivals: []string{"{hpa ns}"}, now: now,
	}, values
}

func TestByUtilization(t *testing.T) {
	for _, c := range []struct {
		name     string
		replicas int32
		target   int32
		pods     string
		want     int32
		percent  int32
		err      string
	}{
		{"up", 3, 30, "300 500 700", 5, 50, ""},
		{"down", 5, 50, "100 300 500 250 250", 3, 28, ""},
		{"near enough", 3, 100, "1010/0.9 1030/1 1020/1.1", 3, 102, ""},
		{"ready pods count, not the spec", 7, 50, "1000", 2, 100, ""},
		{"an unready pod damps", 3, 30, "300u 500 700", 4, 60, ""},
		{"unready pods stop", 3, 30, "400 500u 700u", 3, 40, ""},
		{"a pod that was just started damps", 3, 30, "300h 500 700", 4, 60, ""},
		{"pods that were just started stop", 3, 30, "400 500h 700h", 3, 40, ""},
		{"a pod that is ready for a window counts", 3, 30, "300s 500 700", 5, 50, ""},
		{"a pod without conditions counts as unready", 3, 30, "300w 500 700", 4, 60, ""},
		{"unready pods would turn it round", 2, 50, "600 1000u 1000u 1000u", 2, 60, ""},
		{"failed pods do not count", 2, 30, "500 700 -F -F", 4, 60, ""},
		{"nor do pods that go", 2, 30, "500 700 1000D 1000D", 4, 60, ""},
		{"down without unready pods", 5, 50, "100 300 500 250u 250u", 2, 30, ""},
		{"down without pods that were just started", 5, 50, "100 300 500 250h 250h", 2, 30, ""},
		{"down without pending pods", 5, 50, "100 -P -P -P -P", 1, 10, ""},
		{"down with failed pods", 5, 50, "100 300 500 250 250 -F -F", 3, 28, ""},
		{"down with pods that go but run", 5, 50, "100 300 500 250 250 0D 0D", 3, 28, ""},
		{"up, those that say nothing count as idle", 2, 100, "1900 -", 2, 190, ""},
		{"up nevertheless", 2, 50, "2000 -", 4, 200, ""},
		{"down, they count as busy", 2, 100, "600 -", 2, 60, ""},
		{"down nevertheless", 4, 100, "400 95 - -", 3, 24, ""},
		{"down, as busy as the target if that is more than what was requested", 4, 300, "200 100 100 -", 2, 13, ""},
		{"exactly on target, whatever is missing", 2, 100, "1000 -", 2, 100, ""},
		{"missing and unready, no change", 3, 50, "100u 450 -", 3, 45, ""},
		{"missing and just started, no change", 3, 50, "100h 450 -", 3, 45, ""},
		{"missing and unready, up", 3, 50, "100u 2000 -", 4, 200, ""},
		{"missing and unready, down", 4, 50, "100u 100 100 -", 3, 10, ""},
		{"more pods than replicas while it rolls: pending ones do not scale up", 2, 50, "100 100 -P", 1, 10, ""},
		{"more pods than replicas and some say nothing: no turning round", 2, 50, "490 490 - -", 2, 49, ""},
		{"nobody says anything", 4, 100, "- - -", 0, 0, "did not receive metrics for targeted pods (pods might be unready)"},
		{"only unready pods say something", 4, 100, "500u 500u", 0, 0, "did not receive metrics for targeted pods (pods might be unready)"},
		{"there are no pods", 4, 100, "", 0, 0, "no pods returned by selector while calculating replica count"},
		{"no request", 1, 100, "200/none", 0, 0, "missing request for cpu in container c of Pod pod-0"},
		{"requests of nothing", 1, 100, "200/0", 0, 0, "no metrics returned matched known pods"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, values := snap(c.replicas, c.pods)
			n, percent, _, err := s.byUtilization(values, c.target, corev1.ResourceCPU, "")
			if fmt.Sprint(err) != c.err && (err != nil || c.err != "") {
				t.Fatalf("%v, not %s", err, c.err)
			}
			if n != c.want || percent != c.percent {
				t.Errorf("%d replicas at %d %%, not %d at %d %%", n, percent, c.want, c.percent)
			}
		})
	}
	// Figures of pods that nobody knows, as there are after a delete, count nothing.
	s, values := snap(4, "500 500")
	values["stranger"] = sample{value: 1e9}
	if n, percent, _, err := s.byUtilization(values, 50, corev1.ResourceCPU, ""); n != 4 || percent != 50 || err != nil {
		t.Error(n, percent, err)
	}
	// Memory does not ask whether a pod has been ready.
	s, values = snap(3, "300u 500 700")
	if n, percent, _, err := s.byUtilization(values, 30, corev1.ResourceMemory, ""); n != 5 || percent != 50 || err != nil {
		t.Error(n, percent, err)
	}
}

func TestByAverage(t *testing.T) {
	for _, c := range []struct {
		name     string
		replicas int32
		target   int64
		pods     string
		resource corev1.ResourceName
		want     int32
		average  int64
		err      string
	}{
		{"up", 3, 15000, "20000 10000 30000", "", 4, 20000, ""},
		{"down", 5, 20000, "12000 12000 12000 12000 12000", "", 3, 12000, ""},
		{"near enough", 3, 20666, "20000 21000 21000", "", 3, 20666, ""},
		{"unready and just started pods count", 3, 15000, "50000u 10000 30000h", "", 6, 30000, ""},
		{"but not for CPU", 3, 15000, "50000u 10000 30000h", "cpu", 1, 10000, ""},
		{"pending ones do not", 3, 15000, "50000P 15000 30000", "", 3, 22500, ""},
		{"missing ones stop going up", 2, 1000, "1900 -", "", 2, 1900, ""},
		{"and count as on target going down", 4, 1000, "400 95 - -", "", 3, 247, ""},
		{"on target, whatever is missing", 2, 1000, "1000 -", "", 2, 1000, ""},
		{"without pods", 2, 1000, "", "", 0, 0, "no pods returned by selector while calculating replica count"},
		{"without figures", 2, 1000, "- -", "", 0, 0, "did not receive metrics for targeted pods (pods might be unready)"},
		{"more than there can be", 3, 1, fmt.Sprint(int64(math.MaxInt64)/4, " ", int64(math.MaxInt64)/4), "", math.MaxInt32, math.MaxInt64 / 4, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, values := snap(c.replicas, c.pods)
			n, average, err := s.byAverage(values, c.target, c.resource)
			if fmt.Sprint(err) != c.err && (err != nil || c.err != "") {
				t.Fatalf("%v, not %s", err, c.err)
			}
			if n != c.want || average != c.average {
				t.Errorf("%d replicas at %d, not %d at %d", n, average, c.want, c.average)
			}
		})
	}
}

func TestByRatio(t *testing.T) {
	for _, c := range []struct {
		name     string
		replicas int32
		ratio    float64
		pods     string
		want     int32
		err      string
	}{
		{"up", 3, 20. / 15, "- - -", 4, ""},
		{"down", 5, 12. / 20, "- - - - -", 3, ""},
		{"near enough", 3, 1.05, "- - -", 3, ""},
		{"only ready pods count", 3, 5, "- -u -u", 5, ""},
		{"nor do pending ones", 3, 3, "- -P -", 6, ""},
		{"from zero", 0, 1.2, "", 2, ""},
		{"zero stays zero", 0, 0, "", 0, ""},
		{"from zero without tolerance", 0, .05, "", 1, ""},
		{"without pods", 3, 2, "", 0, "unable to calculate ready pods: no pods returned by selector while calculating replica count"},
		{"more than there can be", 3, 1e12, "- - -", math.MaxInt32, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := snap(c.replicas, c.pods)
			n, err := s.byRatio(c.ratio)
			if fmt.Sprint(err) != c.err && (err != nil || c.err != "") {
				t.Fatalf("%v, not %s", err, c.err)
			}
			if n != c.want {
				t.Errorf("%d replicas, not %d", n, c.want)
			}
		})
	}
}

func TestPerPod(t *testing.T) {
	for _, c := range []struct {
		name          string
		replicas      int32
		usage, target int64
		want          int32
		average       int64
	}{
		{"up", 3, 20000, 5000, 4, 6667},
		{"down", 5, 6000, 2000, 3, 1200},
		{"near enough", 4, 20800, 5000, 4, 5200},
		{"from zero", 0, 8600, 4400, 2, 8600},
		{"nothing", 3, 0, 4400, 0, 0},
		{"more than there can be", 3, math.MaxInt64, 1, math.MaxInt32, math.MaxInt64},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := snap(c.replicas, "")
			if n, average := s.perPod(c.usage, c.target); n != c.want || average != c.average {
				t.Errorf("%d replicas at %d, not %d at %d", n, average, c.want, c.average)
			}
		})
	}
	if got := sum([]int64{math.MaxInt64 - 5, 10}); got != math.MaxInt64 {
		t.Errorf("a sum beyond what there is: %d", got)
	}
}

func TestToleranceOfItsOwn(t *testing.T) {
	rules := func(t string) *autoscalingv2.HPAScalingRules {
		if t == "" {
			return nil
		}
		return &autoscalingv2.HPAScalingRules{Tolerance: ptr.To(resource.MustParse(t))}
	}
	for _, c := range []struct {
		up, down, pods string
		want           int32
	}{
		{"", "", "1080 1080 1080", 3},
		{"0.05", "", "1080 1080 1080", 4},
		{"0", "", "1010 1010 1010", 4},
		{"0.3", "", "1290 1290 1290", 3},
		{"0.3", "", "800 800 800", 3}, // three times 0.8 is still three
		{"", "0.5", "550 550 550", 3},
		{"", "0.4", "550 550 550", 2},
		{"0.5", "", "550 550 550", 2},
	} {
		s, values := snap(3, c.pods)
		s.scaler.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(c.up), ScaleDown: rules(c.down)}
		if n, _, _, err := s.byUtilization(values, 100, corev1.ResourceCPU, ""); n != c.want || err != nil {
			t.Errorf("%+v: %d replicas, %v", c, n, err)
		}
	}
}

func TestGroups(t *testing.T) {
	old, young := now.Add(-10*time.Minute), now.Add(-2*time.Minute)
	for _, c := range []struct {
		name           string
		start, changed time.Time
		ready          bool
		at             time.Time
		counts         bool
	}{
		{"ready for long", old, old.Add(time.Second), true, now, true},
		{"young, ready for a window", young, now.Add(-time.Minute), true, now, true},
		{"young, not for a window", young, now.Add(-59 * time.Second), true, now, false},
		{"young and unready", young, young, false, now, false},
		{"old, unready, never was ready", old, old.Add(29 * time.Second), false, now, false},
		{"old, unready, was ready", old, old.Add(31 * time.Second), false, now, true},
		{"old, ready again for a moment", old, now, true, now, true},
	} {
		s, _ := snap(1, "500")
		s.pods[0].Status.StartTime = &metav1.Time{Time: c.start}
		condition := &s.pods[0].Status.Conditions[1]
		condition.LastTransitionTime = metav1.NewTime(c.changed)
		if !c.ready {
			condition.Status = corev1.ConditionFalse
		}
		g := s.group(map[string]sample{"pod-0": {at: c.at, window: time.Minute}}, corev1.ResourceCPU)
		if (g.ready == 1) != c.counts || (len(g.unready) == 0) != c.counts {
			t.Errorf("%s: %+v", c.name, g)
		}
		if g := s.group(map[string]sample{"pod-0": {}}, corev1.ResourceMemory); g.ready != 1 {
			t.Errorf("%s: memory: %+v", c.name, g)
		}
	}
}

func TestRequests(t *testing.T) {
	container := func(name, cpu string, sidecar bool) corev1.Container {
		c := corev1.Container{Name: name}
		if cpu != "" {
			c.Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse(cpu)}
		}
		if sidecar {
			c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		}
		return c
	}
	for _, c := range []struct {
		name      string
		init, run []corev1.Container
		pod       string
		only      string
		want      int64
		err       string
	}{
		{"sum", nil, []corev1.Container{container("a", "100m", false), container("b", "200m", false)}, "", "", 300, ""},
		{"one", nil, []corev1.Container{container("a", "100m", false), container("b", "", false)}, "", "a", 100, ""},
		{"sidecars run, too", []corev1.Container{container("init", "5", false), container("side", "50m", true)}, []corev1.Container{container("a", "100m", false)}, "", "", 150, ""},
		{"one is a sidecar", []corev1.Container{container("side", "50m", true)}, []corev1.Container{container("a", "", false)}, "", "side", 50, ""},
		{"missing", nil, []corev1.Container{container("a", "100m", false), container("b", "", false)}, "", "", 0, "missing request for cpu in container b of Pod p"},
		{"no such", []corev1.Container{container("init", "1", false)}, []corev1.Container{container("a", "100m", false)}, "", "init", 0, "container init not found in Pod p"},
		{"the pod says", nil, []corev1.Container{container("a", "", false)}, "2", "", 2000, ""},
		{"the pod says, but one is asked for", nil, []corev1.Container{container("a", "100m", false)}, "2", "a", 100, ""},
	} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{InitContainers: c.init, Containers: c.run}}
		if c.pod != "" {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse(c.pod)}}
		}
		got, err := requests([]*corev1.Pod{p}, c.only, "cpu")
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil || got["p"] != c.want {
			t.Errorf("%s: %v %v", c.name, got, err)
		}
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Resources: &corev1.ResourceRequirements{Requests: corev1.ResourceList{"memory": resource.MustParse("1Gi")}}}}
	if _, err := requests([]*corev1.Pod{p}, "", "cpu"); err == nil || err.Error() != "missing pod-level request for cpu in Pod p" {
		t.Error(err)
	}
}
