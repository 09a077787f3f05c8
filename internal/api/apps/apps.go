// Package apps describes the kinds of apps/v1: Deployment, ReplicaSet,
// StatefulSet, DaemonSet and ControllerRevision.
package apps

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/core"
	"github.com/proa-dev/proa/internal/api/validate"
)

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{controllerRevision(), daemonSet(), deployment(), replicaSet(), statefulSet()}
}

func gvk(kind string) schema.GroupVersionKind { return appsv1.SchemeGroupVersion.WithKind(kind) }

func resource(name string) schema.GroupResource { return appsv1.Resource(name) }

// status is the status subresource.
func status() api.Subresource { return api.Subresource{Name: "status"} }

// selectorAndTemplate checks what all kinds with pods of their own have: a
// selector that is there and not empty, and a template that it matches. kind is
// the one upstream names in the message about an empty selector.
func selectorAndTemplate(e *validate.Errs, s *metav1.LabelSelector, t, old *corev1.PodTemplateSpec, kind, invalid string, p *validate.Path) {
	if s == nil {
		e.Required(p.Child("selector"), "")
	} else {
		validate.Selector(e, s, p.Child("selector"))
		notEmpty(e, s, kind, p)
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		e.Invalid(p.Child("selector"), s, invalid)
		return
	}
	if !selector.Empty() {
		matches(e, selector, t, p)
	}
	core.ValidatePodTemplate(e, t, old, p.Child("template"))
}

func notEmpty(e *validate.Errs, s *metav1.LabelSelector, kind string, p *validate.Path) {
	if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		e.Invalid(p.Child("selector"), s, "empty selector is invalid for "+kind)
	}
}

func matches(e *validate.Errs, s labels.Selector, t *corev1.PodTemplateSpec, p *validate.Path) {
	if !s.Matches(labels.Set(t.Labels)) {
		e.Invalid(p.Child("template").Child("metadata").Child("labels"), t.Labels, "`selector` does not match template `labels`")
	}
}

// runsForEver checks that the pods are ones that never end of themselves. kind
// is the one upstream names.
func runsForEver(e *validate.Errs, s *corev1.PodSpec, kind string, p *validate.Path) {
	at := p.Child("template").Child("spec")
	if s.RestartPolicy != corev1.RestartPolicyAlways {
		validate.NotSupported(e, at.Child("restartPolicy"), s.RestartPolicy, corev1.RestartPolicyAlways)
	}
	if s.ActiveDeadlineSeconds != nil {
		e.Forbidden(at.Child("activeDeadlineSeconds"), "activeDeadlineSeconds in "+kind+" is not Supported")
	}
}

// zero says whether a count or percentage is 0.
func zero(v *intstr.IntOrString) bool {
	if v == nil {
		return true
	}
	if n, ok := validate.Percent(*v); ok {
		return n == 0
	}
	return v.IntValue() == 0
}

// atMost requires a number of the status not to exceed another.
func atMost(e *validate.Errs, n, limit int32, p *validate.Path, limitName string) {
	if n > limit {
		e.Invalid(p, n, "cannot be greater than "+limitName)
	}
}

func optional[T int32 | int64](e *validate.Errs, n *T, p *validate.Path) {
	if n != nil {
		validate.NotBelowZero(e, *n, p)
	}
}

// collisions requires the count of hash collisions never to fall.
func collisions(e *validate.Errs, now, old *int32, p *validate.Path) {
	n := int32(0)
	if now != nil {
		n = *now
	}
	if old != nil && n < *old {
		e.Invalid(p, n, "cannot be decremented")
	}
}

// warnTemplate returns the warnings of a template when its object is created or
// its spec has changed.
func warnTemplate(obj, old metav1.Object, t *corev1.PodTemplateSpec) []string {
	if old != nil && obj.GetGeneration() == old.GetGeneration() {
		return nil
	}
	return core.WarnPodTemplate(t, field.NewPath("spec", "template"))
}

// longName warns of names that do not fit into those of pods.
func longName(name string) []string {
	if why := validate.Label(name); why != nil {
		return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", why)}
	}
	return nil
}
