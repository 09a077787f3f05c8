package admission

import (
	"context"
	"log/slog"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/quota"
	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/extension/hook"
	"github.com/proa-dev/proa/internal/cache"
)

// Config of the chain.
type Config struct {
	Catalog    *api.Catalog
	Of         func(*api.Kind) cache.Reader
	RBAC       *auth.RBAC
	Authorizer auth.Authorizer
	// Hooks calls webhooks.
	Hooks *hook.Client
	// Charge stores the status of a quota; a Conflict says that it has changed.
	Charge func(context.Context, *corev1.ResourceQuota) error
	// Pending are the writes that are charged, for who counts what is used.
	Pending *quota.Pending
	// Merge applies a configuration to an object of a served version; managedfields.Manager does.
	Merge func(k api.Served, obj api.Object, config *unstructured.Unstructured) (map[string]any, error)
	Log   *slog.Logger
}

// Builtin is the chain that every Proa server runs, in upstream's order: what
// sets fields comes before what judges them. After the plugins that are built in
// come what users extend them with, policies and webhooks, and last the quotas.
func Builtin(c Config) (Chain, error) {
	catalog, of := c.Catalog, c.Of
	read := func(obj api.Object) cache.Reader {
		k, _ := catalog.Type(obj)
		return of(k)
	}
	namespaces, pods := read(&corev1.Namespace{}), read(&corev1.Pod{})
	security, err := NewPodSecurity(namespaces, pods)
	if err != nil {
		return Chain{}, err
	}
	plugins := []Plugin{
		&NamespaceLifecycle{cache.Typed[*corev1.Namespace]{Reader: namespaces}},
		&LimitRanger{cache.Typed[*corev1.LimitRange]{Reader: read(&corev1.LimitRange{})}},
		&ServiceAccount{cache.Typed[*corev1.ServiceAccount]{Reader: read(&corev1.ServiceAccount{})}},
		&NodeRestriction{cache.Typed[*corev1.Pod]{Reader: pods}},
		TaintNodes{},
		security,
		&Priority{cache.Typed[*schedulingv1.PriorityClass]{Reader: read(&schedulingv1.PriorityClass{})}},
		DefaultTolerationSeconds{},
		&DefaultStorageClass{cache.Typed[*storagev1.StorageClass]{Reader: read(&storagev1.StorageClass{})}},
		StorageProtection{},
		&VolumeClaimResize{cache.Typed[*storagev1.StorageClass]{Reader: read(&storagev1.StorageClass{})}},
		&RuntimeClass{cache.Typed[*nodev1.RuntimeClass]{Reader: read(&nodev1.RuntimeClass{})}},
		&DefaultIngressClass{cache.Typed[*networkingv1.IngressClass]{Reader: read(&networkingv1.IngressClass{})}},
		&PodTopologyLabels{cache.Typed[*corev1.Node]{Reader: read(&corev1.Node{})}},
		&Certificates{Authorizer: c.Authorizer},
		&RBACEscalation{RBAC: c.RBAC, Authorizer: c.Authorizer},
	}
	var again []Mutator
	for _, p := range plugins {
		if m, ok := p.(Mutator); ok {
			again = append(again, m)
		}
	}
	x := &Expressions{Authorizer: c.Authorizer}
	configured := func(obj api.Object) hooks {
		return hooks{read(obj), cache.Typed[*corev1.Namespace]{Reader: namespaces}, c.Hooks, x, c.Log}
	}
	policies := func(policy, binding api.Object) policies {
		return policies{read(policy), read(binding), cache.Typed[*corev1.Namespace]{Reader: namespaces}, params{catalog, of}, x}
	}
	plugins = append(plugins,
		&ExpressionCheck{x},
		&MutatingPolicies{policies(&admissionv1.MutatingAdmissionPolicy{}, &admissionv1.MutatingAdmissionPolicyBinding{}), c.Merge},
		&MutatingWebhooks{configured(&admissionv1.MutatingWebhookConfiguration{}), again},
		&ValidatingPolicies{policies(&admissionv1.ValidatingAdmissionPolicy{}, &admissionv1.ValidatingAdmissionPolicyBinding{})},
		&ValidatingWebhooks{configured(&admissionv1.ValidatingWebhookConfiguration{})},
		&ResourceQuota{
			Quotas: cache.Typed[*corev1.ResourceQuota]{Reader: read(&corev1.ResourceQuota{})}, Charge: c.Charge, Pending: c.Pending,
			Devices: devices{
				classes: cache.Typed[*resourcev1.DeviceClass]{Reader: read(&resourcev1.DeviceClass{})}, pods: cache.Typed[*corev1.Pod]{Reader: pods},
				claims: cache.Typed[*resourcev1.ResourceClaim]{Reader: read(&resourcev1.ResourceClaim{})},
			},
		},
	)
	return NewChain(plugins...), nil
}
