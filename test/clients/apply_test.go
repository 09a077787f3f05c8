package clients

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	appsapply "k8s.io/client-go/applyconfigurations/apps/v1"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/dynamic"

	"github.com/proa-dev/proa/test/clients/proa"
)

// TestServerSideApply has two managers of one Deployment: what both set is a
// conflict that names field and manager, force takes it over, and what a manager no
// longer applies goes.
func TestServerSideApply(t *testing.T) {
	s := proa.Start(t)
	api := clientFor(t, s.Config()).AppsV1().Deployments("default")
	ctx := t.Context()
	labels := map[string]string{"app": "a"}
	container := func(image string) *coreapply.ContainerApplyConfiguration {
		return coreapply.Container().WithName("main").WithImage(image)
	}
	deployment := func(replicas int32, containers ...*coreapply.ContainerApplyConfiguration) *appsapply.DeploymentApplyConfiguration {
		spec := appsapply.DeploymentSpec().WithSelector(metaapply.LabelSelector().WithMatchLabels(labels)).
			WithTemplate(coreapply.PodTemplateSpec().WithLabels(labels).WithSpec(coreapply.PodSpec().WithContainers(containers...)))
		if replicas > 0 {
			spec.WithReplicas(replicas)
		}
		return appsapply.Deployment("a", "default").WithSpec(spec)
	}
	first := metav1.ApplyOptions{FieldManager: "first"}
	second := metav1.ApplyOptions{FieldManager: "second"}

	made := must(api.Apply(ctx, deployment(3, container("a:1"), coreapply.Container().WithName("side").WithImage("b:1")), first))(t)
	if *made.Spec.Replicas != 3 || len(made.Spec.Template.Spec.Containers) != 2 {
		t.Fatalf("it is %v", made.Spec)
	}
	again := must(api.Apply(ctx, deployment(3, container("a:1"), coreapply.Container().WithName("side").WithImage("b:1")), first))(t)
	if again.Generation != made.Generation {
		t.Error("applying the same made another generation")
	}

	_, err := api.Apply(ctx, appsapply.Deployment("a", "default").WithSpec(appsapply.DeploymentSpec().WithReplicas(5)), second)
	if status := (*apierrors.StatusError)(nil); !apierrors.IsConflict(err) || !asStatus(err, &status) || len(status.ErrStatus.Details.Causes) != 1 ||
		status.ErrStatus.Details.Causes[0].Field != ".spec.replicas" || status.ErrStatus.Details.Causes[0].Type != metav1.CauseTypeFieldManagerConflict ||
		!strings.Contains(status.ErrStatus.Details.Causes[0].Message, `"first"`) {
		t.Fatalf("two set the number of replicas: %#v", err)
	}
	second.Force = true
	now := must(api.Apply(ctx, appsapply.Deployment("a", "default").WithSpec(appsapply.DeploymentSpec().WithReplicas(5)), second))(t)
	if *now.Spec.Replicas != 5 {
		t.Errorf("%d replicas", *now.Spec.Replicas)
	}
	now = must(api.Apply(ctx, deployment(0, container("a:2")), first))(t) // no longer says how many, nor the second container
	if *now.Spec.Replicas != 5 || len(now.Spec.Template.Spec.Containers) != 1 || now.Spec.Template.Spec.Containers[0].Image != "a:2" {
		t.Errorf("it is %v", now.Spec)
	}

	mine := must(appsapply.ExtractDeployment(now, "first"))(t)
	if mine.Spec.Replicas != nil || len(mine.Spec.Template.Spec.Containers) != 1 {
		t.Errorf("the first manages %v", mine.Spec)
	}
	theirs := must(appsapply.ExtractDeployment(now, "second"))(t)
	if theirs.Spec.Replicas == nil || theirs.Spec.Template != nil {
		t.Errorf("the second manages %v", theirs.Spec)
	}
	status := appsapply.Deployment("a", "default").WithStatus(appsapply.DeploymentStatus().WithConditions(
		appsapply.DeploymentCondition().WithType("Tested").WithStatus(corev1.ConditionTrue).WithReason("So")))
	now = must(api.ApplyStatus(ctx, status, metav1.ApplyOptions{FieldManager: "watcher"}))(t)
	if !hasCondition(now, "Tested") {
		t.Errorf("its conditions are %v", now.Status.Conditions)
	}
	if _, err := api.Apply(ctx, deployment(1, container("a:1")), metav1.ApplyOptions{}); err == nil {
		t.Error("nobody applies")
	}
}

func asStatus(err error, into **apierrors.StatusError) bool {
	s, ok := err.(*apierrors.StatusError)
	*into = s
	return ok && s.ErrStatus.Details != nil
}

func hasCondition(d *appsv1.Deployment, kind appsv1.DeploymentConditionType) bool {
	for _, c := range d.Status.Conditions {
		if c.Type == kind {
			return true
		}
	}
	return false
}

// TestDynamicApply applies objects of a definition, also their status, whose lists
// are merged by the keys of the schema.
func TestDynamicApply(t *testing.T) {
	s := proa.Start(t)
	defineWidgets(t, s.Config())
	widgets := must(dynamic.NewForConfig(s.Config()))(t).Resource(widgetResource).Namespace("default")
	ctx := t.Context()
	must(widgets.Apply(ctx, "a", widget("a", map[string]any{"size": int64(2), "color": "red"}), metav1.ApplyOptions{FieldManager: "first"}))(t)
	if _, err := widgets.Apply(ctx, "a", widget("a", map[string]any{"color": "blue"}), metav1.ApplyOptions{FieldManager: "second"}); !apierrors.IsConflict(err) {
		t.Errorf("two set the colour: %v", err)
	}
	now := must(widgets.Apply(ctx, "a", widget("a", map[string]any{"color": "blue"}), metav1.ApplyOptions{FieldManager: "second", Force: true}))(t)
	if color, _, _ := unstructured.NestedString(now.Object, "spec", "color"); color != "blue" {
		t.Errorf("it is %s", color)
	}
	for _, who := range []string{"Ready", "Painted"} {
		w := widget("a", nil)
		delete(w.Object, "spec")
		w.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": who, "status": "True"}}}
		now = must(widgets.ApplyStatus(ctx, "a", w, metav1.ApplyOptions{FieldManager: who}))(t)
	}
	if conditions, _, _ := unstructured.NestedSlice(now.Object, "status", "conditions"); len(conditions) != 2 {
		t.Errorf("the conditions of both are %v", conditions)
	}
	now = must(widgets.Apply(ctx, "a", widget("a", map[string]any{}), metav1.ApplyOptions{FieldManager: "second"}))(t)
	if _, there, _ := unstructured.NestedString(now.Object, "spec", "color"); there {
		t.Error("what nobody applies any more is there")
	}
}
