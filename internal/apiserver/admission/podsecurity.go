package admission

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
)

// PodSecurity holds pods to the Pod Security Standard that their namespace's
// pod-security.kubernetes.io labels name: enforced on pods, warned about on
// pods and on what makes pods. A namespace without labels allows everything.
type PodSecurity struct {
	namespaces cache.Typed[*corev1.Namespace]
	pods       cache.Typed[*corev1.Pod]
	evaluator  policy.Evaluator
	defaults   psa.Policy
}

// NewPodSecurity with upstream's default checks.
func NewPodSecurity(namespaces, pods cache.Reader) (*PodSecurity, error) {
	e, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, err
	}
	open := psa.LevelVersion{Level: psa.LevelPrivileged, Version: psa.LatestVersion()}
	return &PodSecurity{
		namespaces: cache.Typed[*corev1.Namespace]{Reader: namespaces},
		pods:       cache.Typed[*corev1.Pod]{Reader: pods},
		evaluator:  e,
		defaults:   psa.Policy{Enforce: open, Audit: open, Warn: open},
	}, nil
}

// Name implements Plugin.
func (*PodSecurity) Name() string { return "PodSecurity" }

// Validate implements Validator.
func (p *PodSecurity) Validate(ctx context.Context, w *Write) error {
	if w.Operation != Create && w.Operation != Update {
		return nil
	}
	if ns, ok := w.Object.(*corev1.Namespace); ok {
		return p.namespace(ctx, w, ns)
	}
	meta, spec := podSpecOf(w.Object)
	if spec == nil || w.Subresource != "" && w.Subresource != "ephemeralcontainers" {
		return nil
	}
	ns, ok := p.namespaces.Get("", w.Namespace)
	if !ok {
		return nil // NamespaceLifecycle has spoken
	}
	pol, errs := psa.PolicyToEvaluate(ns.Labels, p.defaults)
	pod, isPod := w.Object.(*corev1.Pod)
	if len(errs) == 0 && pol.FullyPrivileged() {
		if isPod {
			audit.Annotate(ctx, enforcedAnnotation, "privileged:latest")
		}
		return nil
	}
	if isPod && w.Operation == Update && !significant(pod, w.Old.(*corev1.Pod)) {
		return nil
	}
	if rec := audit.From(ctx); rec != nil {
		p.audit(rec, &pol, errs.ToAggregate(), isPod, meta, spec)
	}
	if isPod {
		if r := p.check(pol.Enforce, meta, spec); !r.Allowed {
			return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name,
				fmt.Errorf("violates PodSecurity %q: %s", pol.Enforce.String(), r.ForbiddenDetail()))
		}
		if len(errs) > 0 {
			return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name, fmt.Errorf("namespace %q has bad labels: %w", w.Namespace, errs.ToAggregate()))
		}
	}
	if r := p.check(pol.Warn, meta, spec); !r.Allowed {
		request.Warn(ctx, fmt.Sprintf("would violate PodSecurity %q: %s", pol.Warn.String(), r.ForbiddenDetail()))
	}
	return nil
}

// enforcedAnnotation of the audit record names the standard that a pod was held to.
const enforcedAnnotation = psa.AuditAnnotationPrefix + psa.EnforcedPolicyAnnotationKey

// audit records what a pod, or what makes pods, was held to, and what it violates.
func (p *PodSecurity) audit(rec *audit.Record, pol *psa.Policy, bad error, isPod bool, meta *metav1.ObjectMeta, spec *corev1.PodSpec) {
	if bad != nil {
		rec.Annotate(psa.AuditAnnotationPrefix+"error", "Failed to parse policy: "+bad.Error())
	}
	if isPod {
		rec.Annotate(enforcedAnnotation, pol.Enforce.String())
	}
	if r := p.check(pol.Audit, meta, spec); !r.Allowed {
		rec.Annotate(psa.AuditAnnotationPrefix+psa.AuditViolationsAnnotationKey, fmt.Sprintf("would violate PodSecurity %q: %s", pol.Audit.String(), r.ForbiddenDetail()))
	}
}

func (p *PodSecurity) check(lv psa.LevelVersion, meta *metav1.ObjectMeta, spec *corev1.PodSpec) policy.AggregateCheckResult {
	return policy.AggregateCheckResults(p.evaluator.EvaluatePod(lv, meta, spec))
}

// significant: only images, ephemeral containers and the like matter to the
// standards among what may change in a running pod.
func significant(now, old *corev1.Pod) bool {
	images := func(pod *corev1.Pod) []string {
		var l []string
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range list {
				l = append(l, list[i].Name+"="+list[i].Image)
			}
		}
		return l
	}
	return !slices.Equal(images(now), images(old)) ||
		!equality.Semantic.DeepEqual(now.Spec.EphemeralContainers, old.Spec.EphemeralContainers) ||
		!equality.Semantic.DeepEqual(now.Annotations, old.Annotations)
}

// namespace refuses labels that cannot be read, and warns when pods that are
// there would not be let in under stricter ones.
func (p *PodSecurity) namespace(ctx context.Context, w *Write, ns *corev1.Namespace) error {
	if w.Subresource != "" {
		return nil
	}
	pol, errs := psa.PolicyToEvaluate(ns.Labels, p.defaults)
	old, _ := w.Old.(*corev1.Namespace)
	var oldPol psa.Policy
	if old != nil {
		var oldErrs int
		op, e := psa.PolicyToEvaluate(old.Labels, p.defaults)
		oldPol, oldErrs = op, len(e)
		if oldErrs > 0 && len(errs) > 0 {
			return nil // as bad as before
		}
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(w.Kind.Kind.GroupKind(), ns.Name, errs)
	}
	if old == nil || pol.Enforce.Equivalent(&oldPol.Enforce) || psa.CompareLevels(pol.Enforce.Level, oldPol.Enforce.Level) < 1 && pol.Enforce.Version == oldPol.Enforce.Version {
		return nil
	}
	type seen struct {
		first string
		count int
	}
	var order []string
	found := map[string]*seen{}
	p.pods.Each(ns.Name, func(pod *corev1.Pod) bool {
		if r := p.check(pol.Enforce, &pod.ObjectMeta, &pod.Spec); !r.Allowed {
			text := r.ForbiddenReason()
			if found[text] == nil {
				found[text] = &seen{first: pod.Name}
				order = append(order, text)
			}
			found[text].count++
		}
		return len(order) < 3000
	})
	if len(order) > 0 {
		request.Warn(ctx, fmt.Sprintf("existing pods in namespace %q violate the new PodSecurity enforce level %q", ns.Name, pol.Enforce.String()))
	}
	for _, text := range order {
		switch s := found[text]; s.count {
		case 1:
			request.Warn(ctx, fmt.Sprintf("%s: %s", s.first, text))
		case 2:
			request.Warn(ctx, fmt.Sprintf("%s (and 1 other pod): %s", s.first, text))
		default:
			request.Warn(ctx, fmt.Sprintf("%s (and %d other pods): %s", s.first, s.count-1, text))
		}
	}
	return nil
}

// podSpecOf finds the pod in what is a pod or makes pods.
func podSpecOf(o api.Object) (*metav1.ObjectMeta, *corev1.PodSpec) {
	var t *corev1.PodTemplateSpec
	switch o := o.(type) {
	case *corev1.Pod:
		return &o.ObjectMeta, &o.Spec
	case *corev1.PodTemplate:
		t = &o.Template
	case *corev1.ReplicationController:
		t = o.Spec.Template
	case *appsv1.ReplicaSet:
		t = &o.Spec.Template
	case *appsv1.Deployment:
		t = &o.Spec.Template
	case *appsv1.StatefulSet:
		t = &o.Spec.Template
	case *appsv1.DaemonSet:
		t = &o.Spec.Template
	case *batchv1.Job:
		t = &o.Spec.Template
	case *batchv1.CronJob:
		t = &o.Spec.JobTemplate.Spec.Template
	}
	if t == nil {
		return nil, nil
	}
	return &t.ObjectMeta, &t.Spec
}
