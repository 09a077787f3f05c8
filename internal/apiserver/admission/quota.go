package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/quota"
	"github.com/proa-dev/proa/internal/cache"
)

// ResourceQuota refuses what would exceed a namespace's quotas, and charges the
// rest to them. The charge is a write of the quota's status that fails when the
// quota has changed since it was read: so two that together are too much do not
// both pass, whichever server they ask. What is charged for a write that then
// fails, whoever recounts gives back; until it is done, whoever recounts has to know
// of it (Pending).
type ResourceQuota struct {
	Quotas cache.Typed[*corev1.ResourceQuota]
	// Charge stores the status of a quota, which it may change. A Conflict says
	// that the quota is not the newest.
	Charge func(ctx context.Context, q *corev1.ResourceQuota) error
	// Devices is what claims to devices are counted by.
	Devices quota.Devices
	Pending *quota.Pending

	mu   sync.Mutex // guards busy
	busy map[string]*turn
}

// turn lets the writes of one namespace charge one after the other.
type turn struct {
	sync.Mutex
	users int
}

// Name implements Plugin.
func (*ResourceQuota) Name() string { return "ResourceQuota" }

// Validate implements Validator.
func (p *ResourceQuota) Validate(ctx context.Context, w *Write) error {
	if w.Namespace == "" || w.Object == nil || isKind(w, "", "Namespace") || isKind(w, "", "Event") || isKind(w, "events.k8s.io", "Event") ||
		w.Kind.Virtual || !charged(w) || p.Quotas.Snapshot().Count(w.Namespace) == 0 {
		return nil
	}
	if w.DryRun {
		_, err := p.charges(w)
		return err
	}
	defer p.enter(w.Namespace)()
	w.OnDone(p.Pending.Add(w.Kind.Kind, w.Object)) // before it is charged
	done := map[string]bool{}                      // quotas that are charged already
	for {
		all, err := p.charges(w)
		if err != nil {
			return err
		}
		again := false
		for _, q := range all {
			if done[q.Name] {
				continue
			}
			err := p.Charge(ctx, q)
			switch {
			case apierrors.IsConflict(err):
				again = true
			case err != nil && !apierrors.IsNotFound(err):
				return err
			default:
				done[q.Name] = true
			}
		}
		if !again || ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// enter waits for the namespace's turn.
func (p *ResourceQuota) enter(namespace string) (leave func()) {
	p.mu.Lock()
	if p.busy == nil {
		p.busy = map[string]*turn{}
	}
	t := p.busy[namespace]
	if t == nil {
		t = &turn{}
		p.busy[namespace] = t
	}
	t.users++
	p.mu.Unlock()
	t.Lock()
	return func() {
		t.Unlock()
		p.mu.Lock()
		if t.users--; t.users == 0 {
			delete(p.busy, namespace)
		}
		p.mu.Unlock()
	}
}

// charged says whether a write can change what is used.
func charged(w *Write) bool {
	switch o := w.Object.(type) {
	case *corev1.Pod:
		old, _ := w.Old.(*corev1.Pod)
		return w.Subresource == "" && (w.Operation == Create || old != nil && limited(old) != limited(o)) ||
			w.Subresource == "resize" && w.Operation == Update
	case *corev1.Service, *corev1.PersistentVolumeClaim, *resourcev1.ResourceClaim:
		return w.Subresource == "" && (w.Operation == Create || w.Operation == Update)
	}
	return w.Subresource == "" && w.Operation == Create
}

// limited says that a pod may not run for ever, which decides its scope.
func limited(p *corev1.Pod) bool { return p.Spec.ActiveDeadlineSeconds != nil }

// charges are the quotas that a write changes, as they are after it; or the error
// that it is too much.
func (p *ResourceQuota) charges(w *Write) (all []*corev1.ResourceQuota, err error) {
	k, now := w.Kind.Kind, time.Now()
	use := quota.Usage(k, w.Object, p.Devices, now)
	refuse := func(format string, a ...any) bool {
		err = apierrors.NewForbidden(k.GroupResource(), w.Name, fmt.Errorf(format, a...))
		return false
	}
	p.Quotas.Each(w.Namespace, func(q *corev1.ResourceQuota) bool {
		names := countedBy(k, q, p.Devices)
		if len(names) == 0 || !quota.Matches(q, w.Object) {
			return true
		}
		if pod, ok := w.Object.(*corev1.Pod); ok {
			if missing := quota.Missing(q, pod); missing != "" {
				return refuse("failed quota: %s: %s", q.Name, missing)
			}
		}
		for _, name := range names {
			if _, known := q.Status.Used[name]; !known {
				return refuse("status unknown for quota: %s, resources: %s", q.Name, join(names))
			}
		}
		var was corev1.ResourceList
		if w.Old != nil && quota.Matches(q, w.Old) {
			was = quota.Usage(k, w.Old, p.Devices, now)
		}
		after, more := q.DeepCopy(), corev1.ResourceList{}
		for _, name := range names {
			v, ok := use[name]
			if !ok {
				continue
			}
			v = v.DeepCopy()
			if v.Sign() < 0 {
				return refuse("quota usage is negative for resource(s): %s", name)
			}
			v.Sub(was[name])
			if v.Sign() > 0 {
				more[name] = v
			}
		}
		if bad := quota.Exceeds(more, q.Status.Used, q.Status.Hard); len(bad) > 0 {
			return refuse("exceeded quota: %s, requested: %s, used: %s, limited: %s", q.Name,
				amounts(bad, more), amounts(bad, q.Status.Used), amounts(bad, q.Status.Hard))
		}
		if len(more) > 0 {
			quota.Add(after.Status.Used, more)
			all = append(all, after)
		}
		return true
	})
	return all, err
}

// countedBy are the names a quota limits that objects of a kind count for, in order.
func countedBy(k *api.Kind, q *corev1.ResourceQuota, d quota.Devices) (names []corev1.ResourceName) {
	for name := range q.Spec.Hard {
		if quota.Counts(k, name, d) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func join(names []corev1.ResourceName) string {
	text := make([]string, len(names))
	for i, n := range names {
		text[i] = string(n)
	}
	return strings.Join(text, ",")
}

func amounts(names []corev1.ResourceName, of corev1.ResourceList) string {
	slices.Sort(names)
	text := make([]string, len(names))
	for i, n := range names {
		q := of[n]
		text[i] = string(n) + "=" + q.String()
	}
	return strings.Join(text, ",")
}
