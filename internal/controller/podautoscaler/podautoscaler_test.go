package podautoscaler

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/test/controllertest"
)

// world is a cluster with an autoscaler under test, whose clock stands still, and
// where the test says what is measured.
type world struct {
	*controllertest.Cluster
	clock *clocktesting.FakeClock

	mu    sync.Mutex
	cpu   int64             // milli, of each pod
	fail  int               // of a hundred writes over the API's paths
	say   map[string]string // answers by path and query
	asked []string
}

func newWorld(t *testing.T, fail int) *world {
	w := &world{Cluster: controllertest.New(t, fail), clock: clocktesting.NewFakeClock(now), say: map[string]string{}, fail: fail}
	c := New(w.Informers, Config{Options: Defaults(), API: w, Clock: w.clock}, controllertest.Log())
	w.Run(c)
	w.Until("it runs", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.start != nil
	})
	return w
}

// RoundTrip implements http.RoundTripper.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := func(code int, text string) (*http.Response, error) {
		return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
	}
	w.mu.Lock()
	at := r.URL.RequestURI()
	w.asked = append(w.asked, r.Method+" "+at)
	text, said := w.say[at]
	fails := r.Method == http.MethodPut && rand.IntN(100) < w.fail
	cpu := w.cpu
	w.mu.Unlock()
	switch {
	case said:
		return answer(http.StatusOK, text)
	case fails:
		return answer(http.StatusInternalServerError, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"failed by chance","code":500}`)
	case strings.HasPrefix(at, "/apis/metrics.k8s.io/"):
		list := metricsv1beta1.PodMetricsList{}
		for _, p := range controllertest.List[*corev1.Pod](w.Cluster) {
			list.Items = append(list.Items, metricsv1beta1.PodMetrics{
				ObjectMeta: metav1.ObjectMeta{Name: p.Name}, Timestamp: metav1.NewTime(w.clock.Now()), Window: metav1.Duration{Duration: 15 * time.Second},
				Containers: []metricsv1beta1.ContainerMetrics{{Name: "c", Usage: corev1.ResourceList{"cpu": *resource.NewMilliQuantity(cpu, resource.DecimalSI)}}},
			})
		}
		text, err := json.Marshal(list)
		if err != nil {
			return nil, err
		}
		return answer(http.StatusOK, string(text))
	}
	return w.API.RoundTrip(r)
}

func (w *world) uses(cpu int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cpu = cpu
}

// took is what was asked since the last call.
func (w *world) took() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.asked = nil }()
	return w.asked
}

// pass time, once everybody who waits for it waits.
func (w *world) pass(d time.Duration, waiters int) {
	w.T.Helper()
	w.Until("the autoscalers wait", func() bool { return w.clock.Waiters() == waiters })
	w.clock.Step(d)
}

func (w *world) deployment(name, app string, replicas int32) {
	labels := map[string]string{"app": app}
	controllertest.Create(w.Cluster, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}},
	})
	for i := range replicas {
		p := controllertest.Create(w.Cluster, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint(name, "-", i), Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("100m")}}}}},
		})
		controllertest.Change(w.Cluster, "default", p.Name, "status", func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{
				Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: now.Add(-time.Hour)},
				Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}},
			}
		})
	}
}

func scalerOf(name, target string, metrics ...autoscalingv2.MetricSpec) *autoscalingv2.HorizontalPodAutoscaler {
	if len(metrics) == 0 {
		metrics = []autoscalingv2.MetricSpec{utilization("cpu", 50)}
	}
	return &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: target}, MaxReplicas: 10, Metrics: metrics,
		},
	}
}

func (w *world) replicas(name string) int32 {
	return *controllertest.Get[*appsv1.Deployment](w.Cluster, "default", name).Spec.Replicas
}

func (w *world) scaler(name string) *autoscalingv2.HorizontalPodAutoscaler {
	return controllertest.Get[*autoscalingv2.HorizontalPodAutoscaler](w.Cluster, "default", name)
}

func (w *world) condition(name string, t autoscalingv2.HorizontalPodAutoscalerConditionType) string {
	for _, c := range w.scaler(name).Status.Conditions {
		if c.Type == t {
			return c.Reason + " " + string(c.Status) + ": " + c.Message
		}
	}
	return ""
}

func (w *world) events(reason string) (all []string) {
	for _, e := range controllertest.List[*corev1.Event](w.Cluster) {
		if e.Reason == reason && e.InvolvedObject.Kind == "HorizontalPodAutoscaler" {
			all = append(all, e.Message)
		}
	}
	return all
}

func TestScalesOutAndBackIn(t *testing.T) {
	w := newWorld(t, 0)
	if w.clock.HasWaiters() {
		t.Error("somebody waits for the clock although there is no autoscaler")
	}
	w.deployment("d", "x", 2)
	w.uses(100)
	h := scalerOf("h", "d")
	h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: ptr.To(int32(30))}}
	controllertest.Create(w.Cluster, h)
	// It looks at once, not after a period.
	w.Until("it has scaled out", func() bool { return w.replicas("d") == 4 })
	w.Until("its status says so", func() bool { return w.scaler("h").Status.DesiredReplicas == 4 })
	st := w.scaler("h").Status
	if st.CurrentReplicas != 2 || *st.CurrentMetrics[0].Resource.Current.AverageUtilization != 100 || !st.LastScaleTime.Time.Equal(now) {
		t.Errorf("%+v", st)
	}
	w.Until("the event is there", func() bool {
		return slices.Equal(w.events("SuccessfulRescale"), []string{"New size: 4; reason: cpu resource utilization (percentage of request) above target"})
	})
	w.took()
	w.uses(10)
	w.pass(period-time.Second, 1)
	if got := w.took(); len(got) != 0 {
		t.Errorf("it looked before its time: %q", got)
	}
	w.pass(period, 1) // the recommendation of four replicas holds
	w.Until("it waits", func() bool {
		return strings.HasPrefix(w.condition("h", autoscalingv2.AbleToScale), "ScaleDownStabilized True")
	})
	if w.replicas("d") != 4 {
		t.Errorf("%d replicas", w.replicas("d"))
	}
	w.pass(period, 1)
	w.Until("it has scaled in", func() bool { return w.replicas("d") == 1 })

	// A changed spec is looked at at once.
	w.pass(0, 1)
	w.took()
	controllertest.Change(w.Cluster, "default", "h", "", func(h *autoscalingv2.HorizontalPodAutoscaler) { h.Spec.MinReplicas = ptr.To(int32(5)) })
	w.clock.Step(nearest)
	w.Until("the new least is kept", func() bool { return w.replicas("d") == 5 })

	if err := w.Conn.Delete(t.Context(), mustKind(w), "default", "h", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.Until("nobody waits for the clock any more", func() bool { return !w.clock.HasWaiters() })
}

// Every fifth write fails; in the end the target is as large as it should be.
func TestConverges(t *testing.T) {
	w := newWorld(t, 20)
	for i := range 8 {
		w.deployment(fmt.Sprint("d", i), fmt.Sprint("x", i), 1)
		controllertest.Create(w.Cluster, scalerOf(fmt.Sprint("h", i), fmt.Sprint("d", i)))
	}
	w.uses(350)
	rounds := 0
	w.Until("all have scaled out and say so", func() bool {
		if w.clock.Waiters() == 8 && rounds < 200 {
			rounds++
			w.clock.Step(period)
		}
		for i := range 8 {
			if w.replicas(fmt.Sprint("d", i)) != 7 || w.scaler(fmt.Sprint("h", i)).Status.CurrentReplicas != 7 {
				return false
			}
		}
		return true
	})
}

func TestAmbiguousSelectors(t *testing.T) {
	w := newWorld(t, 0)
	w.deployment("d", "x", 2)
	w.deployment("e", "y", 2)
	w.uses(100)
	controllertest.Create(w.Cluster, scalerOf("h", "d"))
	controllertest.Create(w.Cluster, scalerOf("other", "e"))
	w.Until("both have scaled", func() bool { return w.replicas("d") == 4 && w.replicas("e") == 4 })
	controllertest.Create(w.Cluster, scalerOf("rival", "d"))
	w.Until("the second is told", func() bool { return w.condition("rival", autoscalingv2.ScalingActive) != "" })
	if got, want := w.condition("rival", autoscalingv2.ScalingActive), "AmbiguousSelector False: pods by selector app=x are controlled by multiple HPAs: [{h default} {rival default}]"; got != want {
		t.Error(got)
	}
	w.pass(period, 3)
	w.Until("and so is the first", func() bool {
		return strings.HasPrefix(w.condition("h", autoscalingv2.ScalingActive), "AmbiguousSelector")
	})
	if got := w.condition("other", autoscalingv2.ScalingActive); !strings.HasPrefix(got, "ValidMetricFound True") {
		t.Error(got)
	}
	w.pass(0, 3)
	if err := w.Conn.Delete(t.Context(), mustKind(w), "default", "rival", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.pass(period, 2)
	w.Until("it is alone again", func() bool {
		return strings.HasPrefix(w.condition("h", autoscalingv2.ScalingActive), "ValidMetricFound")
	})
}

func TestTargetsThatCannotBeHad(t *testing.T) {
	w := newWorld(t, 0)
	for name, c := range map[string]struct{ version, kind, want string }{
		"gone":    {"apps/v1", "Deployment", `deployments.apps "none" not found`},
		"noscale": {"apps/v1", "DaemonSet", "the server could not find the requested resource"},
		"nokind":  {"apps/v1", "Starship", `no matches for kind "Starship" in group "apps"`},
		"nogroup": {"example.com/v1", "Starship", `no matches for kind "Starship" in group "example.com"`},
		"old":     {"apps/v1beta1", "Deployment", `deployments.apps "none" not found`},
	} {
		h := scalerOf(name, "none")
		h.Spec.ScaleTargetRef.APIVersion, h.Spec.ScaleTargetRef.Kind = c.version, c.kind
		controllertest.Create(w.Cluster, h)
		want := "FailedGetScale False: the HPA controller was unable to get the target's current scale: " + c.want
		w.Until(name+" is told", func() bool { return w.condition(name, autoscalingv2.AbleToScale) != "" })
		if got := w.condition(name, autoscalingv2.AbleToScale); got != want {
			t.Errorf("%s: %s", name, got)
		}
		w.Until("the event is there", func() bool { return slices.Contains(w.events("FailedGetScale"), c.want) })
	}
}

func TestMetricsOfOthers(t *testing.T) {
	w := newWorld(t, 0)
	const group = `{"kind":"APIGroup","apiVersion":"v1","name":"custom.metrics.k8s.io","versions":[{"groupVersion":"custom.metrics.k8s.io/v1beta1","version":"v1beta1"},{"groupVersion":"custom.metrics.k8s.io/v1beta2","version":"v1beta2"}],"preferredVersion":{"groupVersion":"custom.metrics.k8s.io/%[1]s","version":"%[1]s"}}`
	const custom2, custom1, ns = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default", "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default", "/apis/external.metrics.k8s.io/v1beta1/namespaces/default"
	items := func(values ...string) string { return `{"items":[` + strings.Join(values, ",") + `]}` }
	labelled := &metav1.LabelSelector{MatchLabels: map[string]string{"verb": "GET"}}
	pods := ofPods(average("10"))
	pods.Pods.Metric.Selector = labelled
	ingress, namespace := ofObject(value("10")), ofObject(value("10"))
	ingress.Object.DescribedObject = autoscalingv2.CrossVersionObjectReference{APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Name: "main"}
	namespace.Object.DescribedObject = autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Namespace", Name: "kube-system"}
	for i, c := range []struct {
		name   string
		spec   autoscalingv2.MetricSpec
		say    map[string]string
		want   int32
		active string
	}{
		{"nobody serves custom metrics", pods, nil, 2, "FailedGetPodsMetric False: the HPA was unable to compute the replica count: unable to get metric qps: unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered"},
		{"nobody serves external metrics", external(value("10")), nil, 2, "FailedGetExternalMetric False: the HPA was unable to compute the replica count: unable to get external metric default/queue/&LabelSelector{MatchLabels:map[string]string{q: a,},MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external metrics API: the server could not find the requested resource (get queue.external.metrics.k8s.io)"},
		{"of pods", pods, map[string]string{
			"/apis/custom.metrics.k8s.io": fmt.Sprintf(group, "v1beta2"),
			custom2 + "/pods/%2A/qps?labelSelector=app%3Dx2&metricLabelSelector=verb%3DGET": items(
				`{"describedObject":{"name":"d2-0"},"timestamp":"2026-11-21T12:00:00Z","windowSeconds":30,"value":"20"}`,
				`{"describedObject":{"name":"d2-1"},"timestamp":"2026-11-21T12:00:00Z","value":"40"}`),
		}, 4, "ValidMetricFound True: the HPA was able to successfully calculate a replica count from pods metric qps"}, // not more than four at once
		{"of an object, in the older version", ingress, map[string]string{
			"/apis/custom.metrics.k8s.io":                      fmt.Sprintf(group, "v1beta1"),
			custom1 + "/ingresses.networking.k8s.io/main/hits": items(`{"metricName":"hits","value":"15"}`),
		}, 3, "ValidMetricFound True: the HPA was able to successfully calculate a replica count from Ingress metric hits"},
		{"of the namespace, whatever it is called", namespace, map[string]string{
			"/apis/custom.metrics.k8s.io": fmt.Sprintf(group, "v1beta2"), custom2 + "/metrics/hits": items(`{"value":"15"}`),
		}, 3, "ValidMetricFound True: the HPA was able to successfully calculate a replica count from Namespace metric hits"},
		{"of an object, twice", ingress, map[string]string{
			"/apis/custom.metrics.k8s.io":                      fmt.Sprintf(group, "v1beta2"),
			custom2 + "/ingresses.networking.k8s.io/main/hits": items(`{"value":"1"}`, `{"value":"1"}`),
		}, 2, "FailedGetObjectMetric False: the HPA was unable to compute the replica count: unable to get metric hits: Ingress on default main/unable to fetch metrics from custom metrics API: the custom metrics API server returned 2 results when we asked for exactly one"},
		{"external", external(average("10")), map[string]string{ns + "/queue?labelSelector=q%3Da": items(`{"value":"15"}`, `{"value":"15500m"}`)}, 4,
			"ValidMetricFound True: the HPA was able to successfully calculate a replica count from external metric queue(&LabelSelector{MatchLabels:map[string]string{q: a,},MatchExpressions:[]LabelSelectorRequirement{},})"},
		{"external, but nothing", external(average("10")), map[string]string{ns + "/queue?labelSelector=q%3Da": items()}, 2,
			"FailedGetExternalMetric False: the HPA was unable to compute the replica count: unable to get external metric default/queue/&LabelSelector{MatchLabels:map[string]string{q: a,},MatchExpressions:[]LabelSelectorRequirement{},}: no metrics returned from external metrics API"},
	} {
		w.mu.Lock()
		w.say = c.say
		w.mu.Unlock()
		w.took()
		name, target := fmt.Sprint("h", i), fmt.Sprint("d", i)
		w.deployment(target, fmt.Sprint("x", i), 2)
		controllertest.Change(w.Cluster, "default", target, "status", func(d *appsv1.Deployment) { d.Status.Replicas = 2 })
		controllertest.Create(w.Cluster, scalerOf(name, target, c.spec))
		w.Until(c.name, func() bool { return w.condition(name, autoscalingv2.ScalingActive) != "" })
		if got := w.condition(name, autoscalingv2.ScalingActive); got != c.active {
			t.Errorf("%s: %s\nasked %q", c.name, got, w.took())
		}
		if got := w.replicas(target); got != c.want {
			t.Errorf("%s: %d replicas, not %d", c.name, got, c.want)
		}
	}
}

// Those that are there when the controller starts do not all look at once.
func TestPhases(t *testing.T) {
	seen := map[time.Duration]bool{}
	for i := range 100 {
		d := phase(uidOf(i))
		if d < 0 || d >= period {
			t.Errorf("%s", d)
		}
		seen[d/(period/10)] = true
	}
	if len(seen) < 8 {
		t.Errorf("%d of ten parts of the period are used", len(seen))
	}
}

func uidOf(i int) types.UID { return types.UID(fmt.Sprintf("%08d-61b2-4f6a-9f1e-%012d", i*7919, i)) }

func mustKind(w *world) *api.Kind {
	w.T.Helper()
	k, ok := w.Conn.Catalog().Type(&autoscalingv2.HorizontalPodAutoscaler{})
	if !ok {
		w.T.Fatal("autoscalers are no kind")
	}
	return k
}
