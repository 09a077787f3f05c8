package apps

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/autoscaling"
	"github.com/proa-dev/proa/internal/api/core"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func statefulSet() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("StatefulSet"),
		Resource:         "statefulsets",
		ShortNames:       []string{"sts"},
		Categories:       []string{"all"},
		New:              func() api.Object { return &appsv1.StatefulSet{} },
		NewList:          func() runtime.Object { return &appsv1.StatefulSetList{} },
		Default:          api.Of(defaultStatefulSet),
		Reset:            api.Resets(resetStatefulSet),
		Validate:         api.Validates(validateStatefulSet),
		ValidName:        validate.LabelName,
		Warn:             api.Warns(warnStatefulSet),
		Columns: append([]metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Ready", "string", "Number of the pod with ready state"),
			table.Age(),
		}, table.Containers()...),
		Row: api.Rows(func(s *appsv1.StatefulSet) []any {
			names, images := table.ContainerCells(s.Spec.Template.Spec.Containers)
			return []any{s.Name, fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, *s.Spec.Replicas), table.AgeOf(s), names, images}
		}),
		Subresources: []api.Subresource{
			status(),
			autoscaling.Scale(resource("statefulsets"), func(s *appsv1.StatefulSet) autoscaling.Replicas {
				return autoscaling.Replicas{Wanted: &s.Spec.Replicas, Current: s.Status.Replicas, Selector: autoscaling.SelectorText(s.Spec.Selector)}
			}),
		},
	}
}

func warnStatefulSet(s, old *appsv1.StatefulSet) []string {
	var warnings []string
	if old == nil {
		warnings = warnTemplate(s, nil, &s.Spec.Template)
	} else {
		warnings = warnTemplate(s, old, &s.Spec.Template)
	}
	if n := s.Spec.RevisionHistoryLimit; n != nil && *n < 0 {
		warnings = append(warnings, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
	}
	return warnings
}

func defaultStatefulSet(s *appsv1.StatefulSet) {
	spec := &s.Spec
	if spec.PodManagementPolicy == "" {
		spec.PodManagementPolicy = appsv1.OrderedReadyPodManagement
	}
	u := &spec.UpdateStrategy
	if u.Type == "" {
		u.Type = appsv1.RollingUpdateStatefulSetStrategyType
		defaults.Ptr(&u.RollingUpdate, appsv1.RollingUpdateStatefulSetStrategy{})
	}
	if u.Type == appsv1.RollingUpdateStatefulSetStrategyType && u.RollingUpdate != nil {
		defaults.Ptr(&u.RollingUpdate.Partition, 0)
	}
	defaults.Ptr(&spec.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	for _, policy := range []*appsv1.PersistentVolumeClaimRetentionPolicyType{
		&spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted, &spec.PersistentVolumeClaimRetentionPolicy.WhenScaled,
	} {
		if *policy == "" {
			*policy = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
		}
	}
	defaults.Ptr(&spec.Replicas, 1)
	defaults.Ptr(&spec.RevisionHistoryLimit, 10)
	core.DefaultPodTemplate(&spec.Template)
	for i := range spec.VolumeClaimTemplates {
		c := &spec.VolumeClaimTemplates[i]
		c.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"}
		if c.Status.Phase == "" {
			c.Status.Phase = corev1.ClaimPending
		}
		core.DefaultPersistentVolumeClaimSpec(&c.Spec)
	}
}

func resetStatefulSet(s, old *appsv1.StatefulSet, sub string) {
	if sub == "status" {
		s.Spec, s.Generation = old.Spec, old.Generation
		return
	}
	// maxUnavailable is behind a gate that is off in 1.36 (KEP-961).
	if r := s.Spec.UpdateStrategy.RollingUpdate; r != nil && (old == nil || old.Spec.UpdateStrategy.RollingUpdate == nil ||
		old.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable == nil) {
		r.MaxUnavailable = nil
	}
	if old == nil {
		s.Status = appsv1.StatefulSetStatus{}
		s.Generation = 1
		return
	}
	s.Status = old.Status
	reset.Generation(s, old, reset.Differ(s.Spec, old.Spec))
}

func validateStatefulSet(s, old *appsv1.StatefulSet, sub string) field.ErrorList {
	var e validate.Errs
	if sub == "status" {
		statefulSetStatus(&e, &s.Status, validate.Root("status"))
		collisions(&e, s.Status.CollisionCount, old.Status.CollisionCount, validate.Root("status").Child("collisionCount"))
		return e.List()
	}
	statefulSetSpec(&e, s, old, validate.Root("spec"))
	if old != nil && fixedPartsDiffer(&s.Spec, &old.Spec) {
		e.Forbidden(validate.Root("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden")
	}
	return e.List()
}

func fixedPartsDiffer(now, old *appsv1.StatefulSetSpec) bool {
	n := *now
	n.Replicas, n.Template, n.UpdateStrategy, n.MinReadySeconds = old.Replicas, old.Template, old.UpdateStrategy, old.MinReadySeconds
	n.Ordinals, n.RevisionHistoryLimit, n.PersistentVolumeClaimRetentionPolicy = old.Ordinals, old.RevisionHistoryLimit, old.PersistentVolumeClaimRetentionPolicy
	return reset.Differ(n, *old)
}

func statefulSetSpec(e *validate.Errs, set, old *appsv1.StatefulSet, p *validate.Path) {
	s := &set.Spec
	switch s.PodManagementPolicy {
	case "":
		e.Required(p.Child("podManagementPolicy"), "")
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	default:
		e.Invalid(p.Child("podManagementPolicy"), s.PodManagementPolicy, "must be 'OrderedReady' or 'Parallel'")
	}
	statefulSetStrategy(e, &s.UpdateStrategy, p.Child("updateStrategy"))
	if r := s.PersistentVolumeClaimRetentionPolicy; r != nil {
		at := p.Child("persistentVolumeClaimRetentionPolicy")
		retain, del := appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		validate.OneOf(e, at.Child("whenDeleted"), r.WhenDeleted, retain, del)
		validate.OneOf(e, at.Child("whenScaled"), r.WhenScaled, retain, del)
	}
	optional(e, s.Replicas, p.Child("replicas"))
	validate.NotBelowZero(e, s.MinReadySeconds, p.Child("minReadySeconds"))
	if s.Ordinals != nil {
		validate.NotBelowZero(e, s.Ordinals.Start, p.Child("ordinals").Child("start"))
	}
	// Immutable since: what was let in stays good.
	if old == nil && s.ServiceName != "" {
		e.Invalids(p.Child("serviceName"), s.ServiceName, validate.Label(s.ServiceName))
	}
	var oldTemplate *corev1.PodTemplateSpec
	if old != nil {
		oldTemplate = withClaims(&old.Spec)
	}
	selectorAndTemplate(e, s.Selector, withClaims(s), oldTemplate, "statefulset", "", p)
	runsForEver(e, &s.Template.Spec, "StatefulSet", p)
}

// withClaims is the template as the controller will make pods of it: each has
// a volume for each claim, and name and subdomain are its own.
func withClaims(s *appsv1.StatefulSetSpec) *corev1.PodTemplateSpec {
	t := s.Template
	t.Spec.Hostname, t.Spec.Subdomain = "", ""
	if len(s.VolumeClaimTemplates) == 0 {
		return &t
	}
	claimed := map[string]bool{}
	var volumes []corev1.Volume
	for i := range s.VolumeClaimTemplates {
		name := s.VolumeClaimTemplates[i].Name
		if claimed[name] {
			continue
		}
		claimed[name] = true
		v := corev1.Volume{Name: name}
		v.PersistentVolumeClaim = &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}
		volumes = append(volumes, v)
	}
	for _, v := range s.Template.Spec.Volumes {
		if !claimed[v.Name] {
			volumes = append(volumes, v)
		}
	}
	t.Spec.Volumes = volumes
	return &t
}

func statefulSetStrategy(e *validate.Errs, s *appsv1.StatefulSetUpdateStrategy, p *validate.Path) {
	at := p.Child("rollingUpdate")
	switch s.Type {
	case "":
		e.Required(p, "")
	case appsv1.OnDeleteStatefulSetStrategyType:
		if s.RollingUpdate != nil {
			e.Invalid(at, s.RollingUpdate, "only allowed for updateStrategy 'RollingUpdate'")
		}
	case appsv1.RollingUpdateStatefulSetStrategyType:
		r := s.RollingUpdate
		if r == nil {
			return
		}
		optional(e, r.Partition, at.Child("partition"))
		if m := r.MaxUnavailable; m != nil {
			validate.CountOrPercent(e, *m, at.Child("maxUnavailable"))
			if zero(m) {
				e.Invalid(at.Child("maxUnavailable"), *m, "cannot be 0")
			}
			validate.NotAbove100Percent(e, *m, at.Child("maxUnavailable"))
		}
	default:
		e.Invalid(p, *s, "must be 'RollingUpdate' or 'OnDelete'")
	}
}

func statefulSetStatus(e *validate.Errs, s *appsv1.StatefulSetStatus, p *validate.Path) {
	validate.NotBelowZero(e, s.Replicas, p.Child("replicas"))
	validate.NotBelowZero(e, s.ReadyReplicas, p.Child("readyReplicas"))
	validate.NotBelowZero(e, s.CurrentReplicas, p.Child("currentReplicas"))
	validate.NotBelowZero(e, s.UpdatedReplicas, p.Child("updatedReplicas"))
	validate.NotBelowZero(e, s.AvailableReplicas, p.Child("availableReplicas"))
	validate.NotBelowZero(e, s.ObservedGeneration, p.Child("observedGeneration"))
	optional(e, s.CollisionCount, p.Child("collisionCount"))
	atMost(e, s.ReadyReplicas, s.Replicas, p.Child("readyReplicas"), "status.replicas")
	atMost(e, s.CurrentReplicas, s.Replicas, p.Child("currentReplicas"), "status.replicas")
	atMost(e, s.UpdatedReplicas, s.Replicas, p.Child("updatedReplicas"), "status.replicas")
	atMost(e, s.AvailableReplicas, s.Replicas, p.Child("availableReplicas"), "status.replicas")
	atMost(e, s.AvailableReplicas, s.ReadyReplicas, p.Child("availableReplicas"), "status.readyReplicas")
}
