// Package serviceaccount gives every namespace the service account "default" and
// the ConfigMap kube-root-ca.crt, which pods need to trust the API server, and
// mends both when they are changed or deleted.
package serviceaccount

import (
	"context"
	"log/slog"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
)

const (
	accountName = "default"
	// RootCAName is the ConfigMap that holds the cluster's CA under the key ca.crt.
	RootCAName = "kube-root-ca.crt"
)

// Controller of both.
type Controller struct {
	queue      *loop.Queue
	rootCA     func() []byte
	namespaces *client.Informer[*corev1.Namespace]
	accounts   *client.Informer[*corev1.ServiceAccount]
	configs    *client.Informer[*corev1.ConfigMap]
	makeSA     client.Client[*corev1.ServiceAccount]
	makeCM     client.Client[*corev1.ConfigMap]
}

// New controller; rootCA is the PEM bundle that pods are to trust.
func New(in *client.Informers, rootCA func() []byte, log *slog.Logger) *Controller {
	c := &Controller{
		queue: loop.NewQueue("serviceaccount", log), rootCA: rootCA,
		namespaces: client.Shared[*corev1.Namespace](in, client.Scope{}),
		accounts:   client.Shared[*corev1.ServiceAccount](in, client.Scope{}),
		configs:    client.Shared[*corev1.ConfigMap](in, client.Scope{}),
		makeSA:     client.For[*corev1.ServiceAccount](in.Conn()),
		makeCM:     client.For[*corev1.ConfigMap](in.As("root-ca-cert-publisher").Conn()),
	}
	c.namespaces.OnChange(func(_, now *corev1.Namespace) {
		if now != nil {
			c.queue.Add(now.Name)
		}
	})
	c.accounts.OnChange(func(old, now *corev1.ServiceAccount) {
		if now == nil && old.Name == accountName {
			c.queue.Add(old.Namespace)
		}
	})
	c.configs.OnChange(func(old, now *corev1.ConfigMap) {
		if now == nil {
			now = old
		}
		if now.Name == RootCAName {
			c.queue.Add(now.Namespace)
		}
	})
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	return c.queue.Run(ctx, 2, c.reconcile, c.namespaces.Synced(), c.accounts.Synced(), c.configs.Synced())
}

func (c *Controller) reconcile(ctx context.Context, namespace string) (time.Duration, error) {
	ns, ok := c.namespaces.Get("", namespace)
	if !ok || ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
		return 0, nil
	}
	if _, ok := c.accounts.Get(namespace, accountName); !ok {
		sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: accountName}}
		if _, err := c.makeSA.Create(ctx, sa); err != nil {
			return 0, err
		}
	}
	want := map[string]string{"ca.crt": string(c.rootCA())}
	have, ok := c.configs.Get(namespace, RootCAName)
	if !ok {
		_, err := c.makeCM.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: RootCAName, Annotations: map[string]string{
				"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. " +
					"No other usage is guaranteed across distributions of Kubernetes clusters.",
			}},
			Data: want,
		})
		return 0, err
	}
	if maps.Equal(have.Data, want) {
		return 0, nil
	}
	mended := have.DeepCopy()
	mended.Data = want
	_, err := c.makeCM.Update(ctx, mended)
	return 0, err
}
