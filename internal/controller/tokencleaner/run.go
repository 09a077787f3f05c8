package tokencleaner

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Tracking is the ConfigMap in kube-system that says since when the use of tokens
// is written down.
const Tracking = "kube-apiserver-legacy-service-account-token-tracking"

// trackingKey stands for it in the queue.
const trackingKey = metav1.NamespaceSystem + "/configmap/" + Tracking

// Config of the controller.
type Config struct {
	// Unused is how long a token must not have been used; 0 = a year.
	Unused time.Duration
	Now    func() time.Time // nil = time.Now
}

// Controller of forgotten tokens.
type Controller struct {
	Config
	queue    *loop.Queue
	in       *client.Informer[*corev1.Secret]
	accounts *client.Informer[*corev1.ServiceAccount]
	pods     *client.Informer[*corev1.Pod]
	mapsIn   *client.Informer[*corev1.ConfigMap]
	secrets  client.Client[*corev1.Secret]
	account  client.Client[*corev1.ServiceAccount]
	maps     client.Client[*corev1.ConfigMap]
}

// New controller.
func New(in *client.Informers, cfg Config, log *slog.Logger) *Controller {
	if cfg.Unused == 0 {
		cfg.Unused = 365 * 24 * time.Hour
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Controller{
		Config:   cfg,
		queue:    loop.NewQueue("tokencleaner", log),
		in:       client.Shared[*corev1.Secret](in, client.Scope{}),
		accounts: client.Shared[*corev1.ServiceAccount](in, client.Scope{}),
		pods:     client.Shared[*corev1.Pod](in, client.Scope{}),
		mapsIn:   client.Shared[*corev1.ConfigMap](in, client.Scope{}),
		secrets:  client.For[*corev1.Secret](in.Conn()),
		account:  client.For[*corev1.ServiceAccount](in.Conn()),
		maps:     client.For[*corev1.ConfigMap](in.As("apiserver").Conn()),
	}
	c.in.OnChange(func(_, now *corev1.Secret) {
		if now != nil && now.Type == corev1.SecretTypeServiceAccountToken {
			c.queue.AddObject(now)
		}
	})
	c.accounts.OnChange(func(_, now *corev1.ServiceAccount) {
		if now != nil {
			for _, r := range now.Secrets {
				c.queue.Add(client.Key(now.Namespace, r.Name))
			}
		}
	})
	c.mapsIn.OnChange(func(old, now *corev1.ConfigMap) {
		if now == nil {
			now = old
		}
		if now.Name == Tracking && now.Namespace == metav1.NamespaceSystem {
			c.queue.Add(trackingKey)
		}
	})
	c.queue.Add(trackingKey)
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	return c.queue.Run(ctx, 1, c.reconcile, c.in.Synced(), c.accounts.Synced(), c.pods.Synced(), c.mapsIn.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	since, err := c.tracking(ctx)
	if err != nil || key == trackingKey {
		return 0, err
	}
	namespace, name := loop.Split(key)
	s, err := c.secrets.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || s.Type != corev1.SecretTypeServiceAccountToken {
		return 0, err
	}
	f := facts{since: since, unused: c.Unused, now: c.Now().UTC()}
	f.owner, err = c.account.Get(ctx, namespace, s.Annotations[corev1.ServiceAccountNameKey])
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for _, p := range c.pods.List(namespace, nil) {
		f.mounted = f.mounted || refers(p, name)
	}
	what, again := decide(s, f)
	switch what {
	case mark:
		patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{"uid": s.UID, "labels": map[string]string{invalidSince: f.now.Format(day)}}})
		_, err = c.secrets.Patch(ctx, namespace, name, client.Patch{Type: types.MergePatchType, Data: patch}, client.WriteOptions{})
	case remove:
		err = c.secrets.Delete(ctx, namespace, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &s.ResourceVersion}})
		if apierrors.IsNotFound(err) {
			err = nil
		}
	}
	return again, err
}

// tracking is from when on the use of tokens is known for certain: the day after
// the one that the ConfigMap names. It is made if it is not there.
func (c *Controller) tracking(ctx context.Context) (time.Time, error) {
	m, err := c.maps.Get(ctx, metav1.NamespaceSystem, Tracking)
	if apierrors.IsNotFound(err) {
		m, err = c.maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: Tracking},
			Data:       map[string]string{"since": c.Now().UTC().Format(day)},
		})
	}
	if err != nil {
		return time.Time{}, err
	}
	at, err := time.Parse(day, m.Data["since"])
	if err == nil {
		return at.AddDate(0, 0, 1), nil
	}
	m = m.DeepCopy()
	m.Data = map[string]string{"since": c.Now().UTC().Format(day)}
	if _, err := c.maps.Update(ctx, m); err != nil {
		return time.Time{}, err
	}
	return c.tracking(ctx)
}
