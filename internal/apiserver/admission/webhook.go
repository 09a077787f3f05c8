package admission

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	plugin "k8s.io/apiserver/pkg/admission/plugin/cel"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/extension/hook"
	"github.com/proa-dev/proa/internal/cache"
)

// webhook is one webhook of a configuration.
type webhook struct {
	admissionv1.ValidatingWebhook
	of         string // name of the configuration
	reinvoke   bool
	criteria   criteria
	target     hook.Target
	conditions func() plugin.ConditionEvaluator
}

// hooks is what both kinds of webhooks need.
type hooks struct {
	Configurations cache.Reader
	Namespaces     cache.Typed[*corev1.Namespace]
	Client         *hook.Client
	Expressions    *Expressions
	Log            *slog.Logger
}

// MutatingWebhooks calls the webhooks of MutatingWebhookConfigurations, in the
// order of their names.
type MutatingWebhooks struct {
	hooks
	// Again are the mutating plugins that look once more at what webhooks have changed.
	Again []Mutator
}

// ValidatingWebhooks calls the webhooks of ValidatingWebhookConfigurations, all at once.
type ValidatingWebhooks struct{ hooks }

// Name implements Plugin.
func (*MutatingWebhooks) Name() string { return "MutatingAdmissionWebhook" }

// Name implements Plugin.
func (*ValidatingWebhooks) Name() string { return "ValidatingAdmissionWebhook" }

// all webhooks in order.
func (h *hooks) all() (all []*webhook) {
	s := h.Configurations.Snapshot()
	if s.Len() == 0 {
		return nil
	}
	s.Ascend("", "", "", func(i *cache.Item) bool {
		made, _ := i.Remember("webhooks", func() (any, error) { return h.prepare(i.Object), nil })
		all = append(all, made.([]*webhook)...)
		return true
	})
	return all
}

func (h *hooks) prepare(obj api.Object) (all []*webhook) {
	add := func(v admissionv1.ValidatingWebhook, reinvoke bool) {
		w := &webhook{ValidatingWebhook: v, of: obj.GetName(), reinvoke: reinvoke, target: targetOf(v.ClientConfig)}
		w.criteria = criteria{rules: v.Rules, policy: v.MatchPolicy, namespaces: v.NamespaceSelector, objects: v.ObjectSelector}
		w.conditions = sync.OnceValue(func() plugin.ConditionEvaluator {
			c, err := h.Expressions.compiler()
			if err != nil {
				return nil
			}
			return h.Expressions.conditions(c, v.MatchConditions, false)
		})
		all = append(all, w)
	}
	switch c := obj.(type) {
	case *admissionv1.ValidatingWebhookConfiguration:
		for _, v := range c.Webhooks {
			add(v, false)
		}
	case *admissionv1.MutatingWebhookConfiguration:
		for _, m := range c.Webhooks {
			add(admissionv1.ValidatingWebhook{
				Name: m.Name, ClientConfig: m.ClientConfig, Rules: m.Rules, FailurePolicy: m.FailurePolicy, MatchPolicy: m.MatchPolicy,
				NamespaceSelector: m.NamespaceSelector, ObjectSelector: m.ObjectSelector, SideEffects: m.SideEffects,
				TimeoutSeconds: m.TimeoutSeconds, AdmissionReviewVersions: m.AdmissionReviewVersions, MatchConditions: m.MatchConditions,
			}, m.ReinvocationPolicy != nil && *m.ReinvocationPolicy == admissionv1.IfNeededReinvocationPolicy)
		}
	}
	return all
}

func targetOf(c admissionv1.WebhookClientConfig) hook.Target {
	t := hook.Target{CABundle: c.CABundle}
	if c.URL != nil {
		t.URL = *c.URL
	}
	if s := c.Service; s != nil {
		t.Service = &hook.Service{Namespace: s.Namespace, Name: s.Name, Port: 443}
		if s.Path != nil {
			t.Service.Path = *s.Path
		}
		if s.Port != nil {
			t.Service.Port = *s.Port
		}
	}
	return t
}

// wants says whether a webhook is to be called, and with which version.
func (h *hooks) wants(ctx context.Context, x *webhook, w *Write) (api.Served, bool, error) {
	k, ok, err := x.criteria.match(w, h.Namespaces)
	if err != nil || !ok || len(x.MatchConditions) == 0 {
		return k, ok, err
	}
	v, err := versioned(w, k)
	if err != nil {
		return k, false, err
	}
	c := x.conditions()
	if c == nil {
		return k, false, errors.New("the match conditions cannot be compiled")
	}
	ok, err = h.Expressions.matches(ctx, c, x.MatchConditions, v, nil)
	if err != nil {
		if x.open() {
			return k, false, nil
		}
		return k, false, apierrors.NewForbidden(w.Kind.GroupResource(), w.Name, err)
	}
	return k, ok, nil
}

// open says that a webhook that cannot be asked lets pass.
func (x *webhook) open() bool {
	return x.FailurePolicy != nil && *x.FailurePolicy == admissionv1.Ignore
}

// Admit implements Mutator.
func (h *MutatingWebhooks) Admit(ctx context.Context, w *Write) error {
	if exempt(w) {
		return nil
	}
	all := h.all()
	if len(all) == 0 {
		return nil
	}
	changes := 0               // by webhooks, so far
	seen := map[*webhook]int{} // how many of them a webhook knows
	round := func(again bool) error {
		for n, x := range all {
			if at, called := seen[x]; again && (!called || !x.reinvoke || at == changes) {
				continue
			}
			k, ok, err := h.wants(ctx, x, w)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			at := place{mutating: true, index: n}
			if again {
				at.round = 1
			}
			changed, err := h.call(ctx, x, k, w, at)
			auditMutation(ctx, x, at, changed)
			if err != nil {
				return err
			}
			if changed {
				changes++
			}
			seen[x] = changes
		}
		return nil
	}
	if err := round(false); err != nil || changes == 0 {
		return err
	}
	for _, m := range h.Again {
		if err := m.Admit(ctx, w); err != nil {
			return err
		}
	}
	return round(true)
}

// Validate implements Validator.
func (h *ValidatingWebhooks) Validate(ctx context.Context, w *Write) error {
	if exempt(w) {
		return nil
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	type failure struct {
		at  int
		err error
	}
	var failed []failure
	for i, x := range h.all() {
		k, ok, err := h.wants(ctx, x, w)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		wg.Go(func() {
			if _, err := h.call(ctx, x, k, w, place{index: i}); err != nil {
				mu.Lock()
				failed = append(failed, failure{i, err})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(failed) == 0 {
		return nil
	}
	return slices.MinFunc(failed, func(a, b failure) int { return cmp.Compare(a.at, b.at) }).err
}

// call a webhook. What it says becomes the error of the write; that it cannot be
// asked is one only when it does not fail open.
func (h *hooks) call(ctx context.Context, x *webhook, k api.Served, w *Write, at place) (changed bool, err error) {
	if w.DryRun && (x.SideEffects == nil || *x.SideEffects != admissionv1.SideEffectClassNone && *x.SideEffects != admissionv1.SideEffectClassNoneOnDryRun) {
		return false, apierrors.NewBadRequest(fmt.Sprintf("admission webhook %q does not support dry run", x.Name))
	}
	within := 10 * time.Second
	if x.TimeoutSeconds != nil {
		within = time.Duration(*x.TimeoutSeconds) * time.Second
	}
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	changed, err = h.ask(limited, x, k, w, at)
	var unasked *uncalled
	if !errors.As(err, &unasked) {
		return changed, err
	}
	if x.open() && ctx.Err() == nil {
		h.Log.Warn("a webhook could not be asked; the write goes on", "webhook", x.Name, "err", unasked.why)
		auditOpen(ctx, x, at)
		return false, nil
	}
	return false, apierrors.NewInternalError(err)
}

// uncalled is a webhook that could not be asked or gave no good answer.
type uncalled struct {
	name string
	why  error
}

func (u *uncalled) Error() string { return fmt.Sprintf("failed calling webhook %q: %v", u.name, u.why) }
