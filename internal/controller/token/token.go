// Package token fills Secrets of type kubernetes.io/service-account-token with a
// token for the account that they name, and deletes them when it is gone. It also
// deletes bootstrap tokens that have expired.
package token

import (
	"bytes"
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// bootstrap is the type of Secrets that hold a token for joining.
const bootstrap corev1.SecretType = "bootstrap.kubernetes.io/token"

// Config of the controller.
type Config struct {
	// Sign makes the token of an account that a Secret is to hold.
	Sign func(sa *corev1.ServiceAccount, secret *corev1.Secret) (string, error)
	// RootCA is the PEM bundle that is kept beside it.
	RootCA func() []byte
}

// Controller of tokens in Secrets.
type Controller struct {
	Config
	queue    *loop.Queue
	in       *client.Informer[*corev1.Secret]
	accounts *client.Informer[*corev1.ServiceAccount]
	secrets  client.Client[*corev1.Secret]
	account  client.Client[*corev1.ServiceAccount]
	now      func() time.Time
}

// New controller.
func New(in *client.Informers, cfg Config, log *slog.Logger) *Controller {
	c := &Controller{
		Config:   cfg,
		queue:    loop.NewQueue("token", log),
		in:       client.Shared[*corev1.Secret](in, client.Scope{}),
		accounts: client.Shared[*corev1.ServiceAccount](in, client.Scope{}),
		secrets:  client.For[*corev1.Secret](in.Conn()),
		account:  client.For[*corev1.ServiceAccount](in.Conn()),
		now:      time.Now,
	}
	c.in.OnChange(func(_, now *corev1.Secret) {
		if now != nil && (now.Type == corev1.SecretTypeServiceAccountToken || now.Type == bootstrap && now.Namespace == metav1.NamespaceSystem) {
			c.queue.AddObject(now)
		}
	})
	c.accounts.OnChange(func(old, now *corev1.ServiceAccount) {
		sa := now
		if sa == nil {
			sa = old
		} else if old != nil && old.UID == now.UID {
			return
		}
		for _, s := range c.in.List(sa.Namespace, nil) {
			if s.Type == corev1.SecretTypeServiceAccountToken && s.Annotations[corev1.ServiceAccountNameKey] == sa.Name {
				c.queue.AddObject(s)
			}
		}
	})
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	return c.queue.Run(ctx, 2, c.reconcile, c.in.Synced(), c.accounts.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name := loop.Split(key)
	s, err := c.secrets.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || s.DeletionTimestamp != nil {
		return 0, err
	}
	if s.Type == bootstrap {
		return c.expire(ctx, s)
	}
	sa, err := c.account.Get(ctx, namespace, s.Annotations[corev1.ServiceAccountNameKey])
	if apierrors.IsNotFound(err) {
		return 0, c.remove(ctx, s)
	}
	if err != nil {
		return 0, err
	}
	if uid := s.Annotations[corev1.ServiceAccountUIDKey]; uid != "" && uid != string(sa.UID) {
		return 0, c.remove(ctx, s) // of an earlier account of the same name
	}
	out := s.DeepCopy()
	if out.Data == nil {
		out.Data = map[string][]byte{}
	}
	if ca := c.RootCA(); !bytes.Equal(out.Data[corev1.ServiceAccountRootCAKey], ca) {
		out.Data[corev1.ServiceAccountRootCAKey] = ca
	}
	out.Data[corev1.ServiceAccountNamespaceKey] = []byte(namespace)
	out.Annotations[corev1.ServiceAccountUIDKey] = string(sa.UID)
	if len(out.Data[corev1.ServiceAccountTokenKey]) == 0 {
		token, err := c.Sign(sa, s)
		if err != nil {
			return 0, err
		}
		out.Data[corev1.ServiceAccountTokenKey] = []byte(token)
	}
	if same(s, out) {
		return 0, nil
	}
	_, err = c.secrets.Update(ctx, out)
	return 0, err
}

func same(a, b *corev1.Secret) bool {
	if a.Annotations[corev1.ServiceAccountUIDKey] != b.Annotations[corev1.ServiceAccountUIDKey] {
		return false
	}
	for k, v := range b.Data {
		if have, ok := a.Data[k]; !ok || !bytes.Equal(have, v) {
			return false
		}
	}
	return true
}

func (c *Controller) remove(ctx context.Context, s *corev1.Secret) error {
	err := c.secrets.Delete(ctx, s.Namespace, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// expire a bootstrap token when its time is up. One whose time cannot be read
// counts as expired; one without a time lasts.
func (c *Controller) expire(ctx context.Context, s *corev1.Secret) (time.Duration, error) {
	text := string(s.Data["expiration"])
	if text == "" {
		return 0, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		if left := at.Sub(c.now()); left > 0 {
			return left, nil
		}
	}
	return 0, c.remove(ctx, s)
}
