package apps

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	autoscalingv1 "k8s.io/api/autoscaling/v1"

	"github.com/proa-dev/proa/internal/api"
)

func plumber() *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "plumber", Namespace: "default"}}
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "plumber"}}
	d.Spec.Template.Labels = map[string]string{"app": "plumber"}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "plumber", Image: "plumber"}}
	deployment().Default(d)
	return d
}

func TestDeploymentDefaults(t *testing.T) {
	s := plumber().Spec
	if *s.Replicas != 1 || *s.RevisionHistoryLimit != 10 || *s.ProgressDeadlineSeconds != 600 ||
		s.Strategy.Type != "RollingUpdate" || s.Strategy.RollingUpdate.MaxSurge.String() != "25%" ||
		s.Strategy.RollingUpdate.MaxUnavailable.String() != "25%" || s.Template.Spec.RestartPolicy != "Always" {
		t.Errorf("%+v", s)
	}
	d := &appsv1.Deployment{}
	d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
	deployment().Default(d)
	if d.Spec.Strategy.RollingUpdate != nil {
		t.Error("Recreate was given a rolling update")
	}
}

func TestDeploymentRules(t *testing.T) {
	zero, one, much, odd := intstr.FromInt32(0), intstr.FromInt32(1), intstr.FromString("101%"), intstr.FromString("x")
	for _, c := range []struct {
		name   string
		change func(*appsv1.Deployment)
		want   string // of each error "FIELD: TYPE: …", "" = good
	}{
		{"good", func(*appsv1.Deployment) {}, ""},
		{"negative replicas", func(d *appsv1.Deployment) { *d.Spec.Replicas = -1 },
			"spec.replicas: Invalid value: -1: must be greater than or equal to 0"},
		{"no selector", func(d *appsv1.Deployment) { d.Spec.Selector = nil }, "spec.selector: Required value"},
		{"empty selector", func(d *appsv1.Deployment) { d.Spec.Selector = &metav1.LabelSelector{} },
			"spec.selector: Invalid value: {}: empty selector is invalid for deployment"},
		{"selector does not match", func(d *appsv1.Deployment) { d.Spec.Template.Labels = map[string]string{"app": "other"} },
			"spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template `labels`"},
		{"restart policy", func(d *appsv1.Deployment) { d.Spec.Template.Spec.RestartPolicy = "Never" },
			`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`},
		{"deadline", func(d *appsv1.Deployment) { n := int64(3); d.Spec.Template.Spec.ActiveDeadlineSeconds = &n },
			"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"},
		{"recreate with rolling update", func(d *appsv1.Deployment) { d.Spec.Strategy.Type = "Recreate" },
			"spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"},
		{"both zero", func(d *appsv1.Deployment) {
			d.Spec.Strategy.RollingUpdate.MaxSurge, d.Spec.Strategy.RollingUpdate.MaxUnavailable = &zero, &zero
		},
			"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"},
		{"one unavailable", func(d *appsv1.Deployment) { d.Spec.Strategy.RollingUpdate.MaxUnavailable = &one }, ""},
		{"too many unavailable", func(d *appsv1.Deployment) { d.Spec.Strategy.RollingUpdate.MaxUnavailable = &much },
			`spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%`},
		{"odd surge", func(d *appsv1.Deployment) { d.Spec.Strategy.RollingUpdate.MaxSurge = &odd },
			`spec.strategy.rollingUpdate.maxSurge: Invalid value: "x": a valid percent string must be a numeric string followed by an ending '%'`},
		{"progress deadline", func(d *appsv1.Deployment) { d.Spec.MinReadySeconds = 600 },
			"spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := plumber()
			c.change(d)
			var got []string
			for _, e := range deployment().Validate(d, nil, "") {
				got = append(got, e.Error())
			}
			if text := strings.Join(got, "\n"); text != c.want && (c.want == "" || !strings.HasPrefix(text, c.want)) {
				t.Errorf("\n got %s\nwant %s", text, c.want)
			}
		})
	}
}

func TestDeploymentSelectorIsImmutable(t *testing.T) {
	d, old := plumber(), plumber()
	d.Spec.Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Exists"}}}
	errs := deployment().Validate(d, old, "")
	if len(errs) != 1 || errs[0].Field != "spec.selector" || errs[0].Detail != "field is immutable" {
		t.Errorf("got %v", errs)
	}
}

func TestDeploymentReset(t *testing.T) {
	reset := deployment().Reset
	d := plumber()
	d.Status.Replicas, d.Generation = 3, 7
	reset(d, nil, "")
	if d.Status.Replicas != 0 || d.Generation != 1 {
		t.Errorf("created with %d replicas, generation %d", d.Status.Replicas, d.Generation)
	}
	old := d.DeepCopy()
	old.Status.Replicas = 2
	same := d.DeepCopy()
	if reset(same, old, ""); same.Generation != 1 || same.Status.Replicas != 2 {
		t.Errorf("unchanged: generation %d, status %d", same.Generation, same.Status.Replicas)
	}
	scaled := d.DeepCopy()
	*scaled.Spec.Replicas = 4
	if reset(scaled, old, "scale"); scaled.Generation != 2 {
		t.Errorf("scaled: generation %d", scaled.Generation)
	}
	annotated := d.DeepCopy()
	annotated.Annotations = map[string]string{"a": "b"}
	if reset(annotated, old, ""); annotated.Generation != 2 {
		t.Errorf("annotated: generation %d", annotated.Generation)
	}
	status := scaled.DeepCopy()
	status.Status.Replicas, status.Labels = 9, map[string]string{"x": "y"}
	if reset(status, old, "status"); *status.Spec.Replicas != 1 || status.Status.Replicas != 9 || status.Labels != nil || status.Generation != 1 {
		t.Errorf("status write: %+v", status)
	}
}

func TestScale(t *testing.T) {
	d := plumber()
	d.UID, d.ResourceVersion, d.Status.Replicas = "u", "5", 1
	scale := deployment().Subresource("scale")
	body, err := scale.Get(d)
	if err != nil {
		t.Fatal(err)
	}
	s := body.(*autoscalingv1.Scale)
	if s.Name != "plumber" || s.Spec.Replicas != 1 || s.Status.Replicas != 1 || s.Status.Selector != "app=plumber" || s.ResourceVersion != "5" {
		t.Errorf("%+v", s)
	}
	s.Spec.Replicas = 6
	if err := scale.Set(d, s); err != nil || *d.Spec.Replicas != 6 {
		t.Errorf("%v: %d", err, *d.Spec.Replicas)
	}
	s.Spec.Replicas = -1
	if err := scale.Set(d, s); err == nil || !strings.Contains(err.Error(), "spec.replicas: Invalid value: -1: must be greater than or equal to 0") {
		t.Errorf("got %v", err)
	}
	s.Spec.Replicas, s.UID = 1, "other"
	if err := scale.Set(d, s); err == nil || !strings.Contains(err.Error(), "Precondition failed") {
		t.Errorf("got %v", err)
	}
}

func TestTables(t *testing.T) {
	for _, c := range []struct {
		kind *api.Kind
		obj  api.Object
		want string
	}{
		{deployment(), plumber(), "NAME READY UP-TO-DATE AVAILABLE AGE CONTAINERS* IMAGES* SELECTOR*"},
		{replicaSet(), nil, "NAME DESIRED CURRENT READY AGE CONTAINERS* IMAGES* SELECTOR*"},
		{daemonSet(), nil, "NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE CONTAINERS* IMAGES* SELECTOR*"},
		{statefulSet(), nil, "NAME READY AGE CONTAINERS* IMAGES*"},
		{controllerRevision(), nil, "NAME CONTROLLER REVISION AGE"},
	} {
		var heads []string
		for _, col := range c.kind.Columns {
			head := strings.ToUpper(col.Name)
			if col.Priority > 0 {
				head += "*"
			}
			heads = append(heads, head)
		}
		if got := strings.Join(heads, " "); got != c.want {
			t.Errorf("%s: %s", c.kind.Kind, got)
		}
	}
	row := deployment().Row(plumber())
	if row[1] != "0/1" || row[2] != int64(0) || fmt.Sprint(row[4]) != "<unknown>" || row[7] != "app=plumber" {
		t.Errorf("%v", row)
	}
}

func TestDaemonSetCountsItsTemplates(t *testing.T) {
	k := daemonSet()
	d := &appsv1.DaemonSet{}
	k.Default(d)
	d.Annotations = map[string]string{appsv1.DeprecatedTemplateGeneration: "77x"}
	k.Reset(d, nil, "")
	if d.Annotations[appsv1.DeprecatedTemplateGeneration] != "1" {
		t.Errorf("%v", d.Annotations)
	}
	next := d.DeepCopy()
	next.Annotations = nil
	next.Spec.Template.Labels = map[string]string{"a": "b"}
	k.Reset(next, d, "")
	if next.Annotations[appsv1.DeprecatedTemplateGeneration] != "2" || next.Generation != 2 {
		t.Errorf("%v, %d", next.Annotations, next.Generation)
	}
}

func TestStatefulSetKeepsWhatIsFixed(t *testing.T) {
	k := statefulSet()
	s := &appsv1.StatefulSet{}
	s.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	s.Spec.Template.Labels = map[string]string{"a": "b"}
	s.Spec.Template.Spec.Containers = []corev1.Container{{Name: "c", Image: "i", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}}}
	s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}
	k.Default(s)
	if c := s.Spec.VolumeClaimTemplates[0]; c.Kind != "PersistentVolumeClaim" || c.Status.Phase != "Pending" {
		t.Errorf("%+v", c)
	}
	changed := s.DeepCopy()
	changed.Spec.ServiceName = "other"
	errs := k.Validate(changed, s, "")
	if len(errs) != 1 || !strings.HasPrefix(errs[0].Detail, "updates to statefulset spec for fields other than 'replicas'") {
		t.Errorf("got %v", errs)
	}
	changed = s.DeepCopy()
	*changed.Spec.Replicas = 5
	if errs := k.Validate(changed, s, ""); len(errs) > 0 {
		t.Errorf("got %v", errs)
	}
}
