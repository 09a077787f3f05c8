package core

import (
	"maps"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/autoscaling"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/index"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func replicationControllerKind() *api.Kind {
	spec, st := corev1.ReplicationControllerSpec{}.SwaggerDoc(), corev1.ReplicationControllerStatus{}.SwaggerDoc()
	columns := append([]metav1.TableColumnDefinition{
		table.Name(),
		table.Col("Desired", "integer", spec["replicas"]),
		table.Col("Current", "integer", st["replicas"]),
		table.Col("Ready", "integer", st["readyReplicas"]),
		table.Age(),
	}, table.Containers()...)
	moves := reset.SpecStatus(func(rc *corev1.ReplicationController) (*corev1.ReplicationControllerSpec, *corev1.ReplicationControllerStatus) {
		return &rc.Spec, &rc.Status
	})
	return &api.Kind{
		GroupVersionKind: gvk("ReplicationController"),
		Resource:         "replicationcontrollers",
		ShortNames:       []string{"rc"},
		Categories:       []string{"all"},
		Path:             "controllers",
		New:              func() api.Object { return &corev1.ReplicationController{} },
		NewList:          func() runtime.Object { return &corev1.ReplicationControllerList{} },
		Default:          api.Of(defaultReplicationController),
		Reset: func(obj, old api.Object, sub string) {
			if t := obj.(*corev1.ReplicationController).Spec.Template; t != nil && sub != "status" {
				ResetPodTemplate(t)
			}
			moves(obj, old, sub)
		},
		Validate: checks(validateReplicationController),
		Warn:     api.Warns(warnReplicationController),
		Columns:  append(columns, table.Wide("Selector", "string", spec["selector"])),
		Row: api.Rows(func(rc *corev1.ReplicationController) []any {
			var desired int32
			if rc.Spec.Replicas != nil {
				desired = *rc.Spec.Replicas
			}
			var containers []corev1.Container
			if rc.Spec.Template != nil {
				containers = rc.Spec.Template.Spec.Containers
			}
			names, images := table.ContainerCells(containers)
			return []any{rc.Name, int64(desired), int64(rc.Status.Replicas), int64(rc.Status.ReadyReplicas), table.AgeOf(rc), names, images, labels.FormatLabels(rc.Spec.Selector)}
		}),
		Fields: api.FieldsOf(func(rc *corev1.ReplicationController) fields.Set {
			return fields.Set{"status.replicas": strconv.Itoa(int(rc.Status.Replicas))}
		}),
		Indexes: index.ByOwner(),
		Subresources: []api.Subresource{
			autoscaling.Scale(schema.GroupResource{Resource: "replicationcontrollers"}, func(rc *corev1.ReplicationController) autoscaling.Replicas {
				return autoscaling.Replicas{Wanted: &rc.Spec.Replicas, Current: rc.Status.Replicas, Selector: labels.Set(rc.Spec.Selector).String()}
			}),
			status(),
		},
		Orphan: true,
	}
}

func defaultReplicationController(rc *corev1.ReplicationController) {
	defaults.Ptr(&rc.Spec.Replicas, 1)
	t := rc.Spec.Template
	if t == nil {
		return
	}
	if len(rc.Spec.Selector) == 0 {
		rc.Spec.Selector = maps.Clone(t.Labels)
	}
	if len(rc.Labels) == 0 {
		rc.Labels = maps.Clone(t.Labels)
	}
	DefaultPodTemplate(t)
}

func validateReplicationController(e *validate.Errs, rc, old *corev1.ReplicationController, sub string) {
	if sub == "status" {
		at, s := validate.Root("status"), &rc.Status
		for _, n := range []struct {
			name string
			v    int64
			most int64
		}{
			{"replicas", int64(s.Replicas), int64(s.Replicas)},
			{"fullyLabeledReplicas", int64(s.FullyLabeledReplicas), int64(s.Replicas)},
			{"readyReplicas", int64(s.ReadyReplicas), int64(s.Replicas)},
			{"availableReplicas", int64(s.AvailableReplicas), int64(s.Replicas)},
			{"observedGeneration", s.ObservedGeneration, s.ObservedGeneration},
		} {
			validate.NotBelowZero(e, n.v, at.Child(n.name))
			if n.v > n.most {
				e.Invalid(at.Child(n.name), n.v, "cannot be greater than status.replicas")
			}
		}
		if s.AvailableReplicas > s.ReadyReplicas {
			e.Invalid(at.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas")
		}
		return
	}
	at, s := validate.Root("spec"), &rc.Spec
	validate.NotBelowZero(e, s.MinReadySeconds, at.Child("minReadySeconds"))
	if len(s.Selector) == 0 {
		e.Required(at.Child("selector"), "")
	}
	if s.Replicas == nil {
		e.Required(at.Child("replicas"), "")
	} else {
		validate.NotBelowZero(e, *s.Replicas, at.Child("replicas"))
	}
	at = at.Child("template")
	if s.Template == nil {
		e.Required(at, "")
		return
	}
	if len(s.Selector) > 0 && !labels.Set(s.Selector).AsSelector().Matches(labels.Set(s.Template.Labels)) {
		e.Invalid(at.Child("metadata").Child("labels"), s.Template.Labels, "`selector` does not match template `labels`")
	}
	var was *corev1.PodTemplateSpec
	if old != nil {
		was = old.Spec.Template
	}
	ValidatePodTemplate(e, s.Template, was, at)
	if p := s.Template.Spec.RestartPolicy; p != corev1.RestartPolicyAlways {
		validate.NotSupported(e, at.Child("spec").Child("restartPolicy"), p, corev1.RestartPolicyAlways)
	}
	if s.Template.Spec.ActiveDeadlineSeconds != nil {
		e.Forbidden(at.Child("spec").Child("activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicationController is not Supported")
	}
	if old != nil {
		unconvertible(e, rc, old)
	}
}

// unconvertible: what an old version could not express must not be lost.
func unconvertible(e *validate.Errs, rc, old *corev1.ReplicationController) {
	for k, v := range old.Annotations {
		if !strings.HasPrefix(k, "non-convertible.kubernetes.io") {
			continue
		}
		_, name, ok := strings.Cut(k, "/")
		if !ok {
			continue
		}
		if !strings.Contains(name, "selector") {
			e.Add(&field.Error{Type: field.ErrorTypeNotFound, BadValue: v, Field: name, Detail: "unknown non-convertible field"})
		} else if !apiequality.Semantic.DeepEqual(old.Spec.Selector, rc.Spec.Selector) {
			e.Invalid(validate.Root("spec").Child("selector"), rc.Spec.Selector, "cannot update non-convertible selector")
		}
	}
}

func warnReplicationController(rc, old *corev1.ReplicationController) []string {
	w := warner{}
	if why := validate.Label(rc.Name); why != nil && old == nil {
		w.addf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", why)
	}
	if rc.Spec.Template != nil && (old == nil || old.Generation != rc.Generation) {
		w.list = append(w.list, WarnPodTemplate(rc.Spec.Template, field.NewPath("spec", "template"))...)
	}
	return w.list
}

func podTemplateKind() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("PodTemplate"),
		Resource:         "podtemplates",
		New:              func() api.Object { return &corev1.PodTemplate{} },
		NewList:          func() runtime.Object { return &corev1.PodTemplateList{} },
		Default:          api.Of(func(t *corev1.PodTemplate) { DefaultPodTemplate(&t.Template) }),
		Reset: api.Resets(func(t, old *corev1.PodTemplate, _ string) {
			ResetPodTemplate(&t.Template)
			if old == nil {
				t.Generation = 1
			} else {
				reset.Generation(t, old, reset.Differ(&t.Template, &old.Template))
			}
		}),
		Validate: checks(func(e *validate.Errs, t, old *corev1.PodTemplate, _ string) {
			var was *corev1.PodTemplateSpec
			if old != nil {
				was = &old.Template
			}
			ValidatePodTemplate(e, &t.Template, was, validate.Root("template"))
		}),
		Warn: api.Warns(func(t, old *corev1.PodTemplate) []string {
			if old != nil && old.Generation == t.Generation {
				return nil
			}
			return WarnPodTemplate(&t.Template, field.NewPath("template"))
		}),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Containers", "string", "Names of each container in the template."),
			table.Col("Images", "string", "Images referenced by each container in the template."),
			table.Col("Pod Labels", "string", "The labels for the pod template."),
		},
		Row: api.Rows(func(t *corev1.PodTemplate) []any {
			names, images := table.ContainerCells(t.Template.Spec.Containers)
			return []any{t.Name, names, images, labels.FormatLabels(t.Template.Labels)}
		}),
	}
}
