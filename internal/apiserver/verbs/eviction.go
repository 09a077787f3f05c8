package verbs

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/admission"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/store"
)

// maxDisrupted is how many evictions a budget remembers that its controller has
// not seen yet.
const maxDisrupted = 2000

// evict deletes a pod unless its disruption budget forbids that now: then the
// answer is TooManyRequests with the cause DisruptionBudget.
func (v *Verbs) evict(ctx context.Context, r *Request, _ api.Object, body runtime.Object) (runtime.Object, error) {
	e := body.(*policyv1.Eviction)
	if e.Name != r.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	opts := metav1.DeleteOptions{}
	if e.DeleteOptions != nil {
		opts = *e.DeleteOptions
	}
	r.DryRun = r.DryRun || len(opts.DryRun) > 0
	w := &admission.Write{Operation: admission.Create, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name, Subresource: r.Subresource, Body: e, Options: orElse(r.Options, &metav1.CreateOptions{}), DryRun: r.DryRun, User: r.User}
	if err := v.Admission.Admit(ctx, w); err != nil {
		return nil, err
	}
	if err := v.Admission.Validate(ctx, w); err != nil {
		return nil, err
	}
	var paid types.UID // the pod whose budget was asked
	for {
		_, item, err := v.pod(r.Namespace, r.Name)
		if err != nil {
			return nil, err
		}
		pod := item.Object.(*corev1.Pod)
		if !alreadyDown(pod) && paid != pod.UID {
			if err := v.spend(ctx, r, pod); err != nil {
				return nil, err
			}
			paid = pod.UID
		}
		err = v.evictNow(ctx, r, item, opts)
		if _, again := errors.AsType[*store.Conflict](err); again && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		return &metav1.Status{Status: metav1.StatusSuccess}, nil
	}
}

// alreadyDown says that evicting a pod disrupts nothing.
func alreadyDown(pod *corev1.Pod) bool {
	switch pod.Status.Phase {
	case corev1.PodSucceeded, corev1.PodFailed, corev1.PodPending:
		return true
	}
	return pod.DeletionTimestamp != nil
}

// evictNow marks the pod, as it was when its budget was asked, as a target of
// disruption and deletes it.
func (v *Verbs) evictNow(ctx context.Context, r *Request, item *cache.Item, opts metav1.DeleteOptions) error {
	on := *r
	on.Subresource = ""
	if err := preconditions(&on, item.Object, opts.Preconditions); err != nil {
		return err
	}
	if r.DryRun {
		return nil
	}
	pod := item.Object.(*corev1.Pod).DeepCopy()
	setCondition(pod, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, ObservedGeneration: pod.Generation,
		Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
	}, v.Now())
	marked, err := v.put(ctx, &on, pod, item)
	if err != nil {
		return err
	}
	for {
		_, _, err = v.delete(ctx, &on, marked, metav1.DeleteOptions{GracePeriodSeconds: opts.GracePeriodSeconds, PropagationPolicy: opts.PropagationPolicy, OrphanDependents: opts.OrphanDependents})
		if _, again := errors.AsType[*store.Conflict](err); !again || ctx.Err() != nil {
			return err
		}
		if marked = v.Cache.Of(r.Kind.Kind).Get(r.Namespace, r.Name); marked == nil || marked.Object.GetUID() != pod.UID {
			return nil
		}
	}
}

// spend takes one disruption from the budget that guards a pod, if there is one
// and the pod counts.
func (v *Verbs) spend(ctx context.Context, r *Request, pod *corev1.Pod) error {
	k, ok := v.Catalog.Type(&policyv1.PodDisruptionBudget{})
	if !ok {
		return nil
	}
	for {
		var guards []*cache.Item
		v.Cache.Of(k).Snapshot().Ascend(r.Namespace, "", "", func(i *cache.Item) bool {
			sel, err := metav1.LabelSelectorAsSelector(i.Object.(*policyv1.PodDisruptionBudget).Spec.Selector)
			if err == nil && sel.Matches(labels.Set(pod.Labels)) {
				guards = append(guards, i)
			}
			return true
		})
		switch len(guards) {
		case 0:
			return nil
		case 1:
		default:
			return &apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Code: 500,
				Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
			}}
		}
		pdb := guards[0].Object.(*policyv1.PodDisruptionBudget)
		if !ready(pod) && mayGoUnready(pdb) {
			return nil
		}
		spent, err := spent(pdb, pod.Name, metav1.NewTime(v.Now().Truncate(1e9).UTC()))
		if err != nil || r.DryRun {
			return err
		}
		_, err = v.commit(ctx, Change{Kind: k, Object: spent, Old: guards[0]})
		if _, again := errors.AsType[*store.Conflict](err); again && ctx.Err() == nil {
			continue
		}
		return refusedOrNil(err)
	}
}

func refusedOrNil(err error) error {
	if err == nil {
		return nil
	}
	return refused(err)
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// mayGoUnready says that a budget lets pods go that are not ready anyway.
func mayGoUnready(pdb *policyv1.PodDisruptionBudget) bool {
	if p := pdb.Spec.UnhealthyPodEvictionPolicy; p != nil && *p == policyv1.AlwaysAllow {
		return true
	}
	return pdb.Status.CurrentHealthy >= pdb.Status.DesiredHealthy && pdb.Status.DesiredHealthy > 0
}

// spent is a copy of the budget with one disruption less.
func spent(pdb *policyv1.PodDisruptionBudget, pod string, now metav1.Time) (*policyv1.PodDisruptionBudget, error) {
	s := &pdb.Status
	switch {
	case s.ObservedGeneration < pdb.Generation:
		return nil, tooManyDisruptions(10, "The disruption budget %s is still being processed by the server.", pdb.Name)
	case s.DisruptionsAllowed < 0:
		return nil, apierrors.NewForbidden(policyv1.Resource("poddisruptionbudget"), pdb.Name, errors.New("pdb disruptions allowed is negative"))
	case len(s.DisruptedPods) > maxDisrupted:
		return nil, apierrors.NewForbidden(policyv1.Resource("poddisruptionbudget"), pdb.Name, errors.New("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	case s.DisruptionsAllowed == 0:
		return nil, exhausted(pdb)
	}
	pdb = pdb.DeepCopy()
	if pdb.Status.DisruptionsAllowed--; pdb.Status.DisruptionsAllowed == 0 {
		meta.SetStatusCondition(&pdb.Status.Conditions, metav1.Condition{
			Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason,
			ObservedGeneration: pdb.Status.ObservedGeneration, LastTransitionTime: now,
		})
	}
	if pdb.Status.DisruptedPods == nil {
		pdb.Status.DisruptedPods = map[string]metav1.Time{}
	}
	pdb.Status.DisruptedPods[pod] = now
	return pdb, nil
}

// exhausted says why a budget allows no disruption. Clients are not told when to
// come back: nobody knows, and "kubectl drain" has a pace of its own.
func exhausted(pdb *policyv1.PodDisruptionBudget) error {
	s := &pdb.Status
	no := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition)
	if no != nil && (no.Status != metav1.ConditionFalse || no.Message == "") {
		no = nil
	}
	switch {
	case no != nil && no.Reason == policyv1.SyncFailedReason:
		return tooManyDisruptions(0, "The disruption budget %s does not allow evicting pods currently because it failed sync: %s", pdb.Name, no.Message)
	case s.CurrentHealthy <= s.DesiredHealthy:
		return tooManyDisruptions(0, "The disruption budget %s needs %d healthy pods and has %d currently", pdb.Name, s.DesiredHealthy, s.CurrentHealthy)
	case no != nil:
		return tooManyDisruptions(0, "The disruption budget %s does not allow evicting pods currently (%s): %s", pdb.Name, no.Reason, no.Message)
	}
	return tooManyDisruptions(0, "The disruption budget %s does not allow evicting pods currently", pdb.Name)
}

// tooManyDisruptions is the answer to an eviction that has to wait; retry in
// seconds, 0 = whenever the client likes.
func tooManyDisruptions(retry int, why string, args ...any) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", retry)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf(why, args...)})
	return err
}
