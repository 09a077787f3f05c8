package ingress

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/client"
)

// patience with a Secret's first answer, before Ingresses are served without it.
const patience = 2 * time.Second

// secretWatches follow the TLS Secrets that Ingresses name, one by one: a node
// may read no others.
type secretWatches struct {
	conn    client.Conn
	changed func()
	log     *slog.Logger

	running sync.WaitGroup
	all     map[types.NamespacedName]*secretWatch
}

type secretWatch struct {
	informer *client.Informer[*corev1.Secret]
	stop     context.CancelFunc
}

// secretsOf Ingresses that are served.
func secretsOf(s Snapshot) map[types.NamespacedName]bool {
	out := map[types.NamespacedName]bool{}
	for _, ing := range s.Ingresses {
		if !s.ours(ing) {
			continue
		}
		for _, tls := range ing.Spec.TLS {
			if tls.SecretName != "" {
				out[types.NamespacedName{Namespace: ing.Namespace, Name: tls.SecretName}] = true
			}
		}
	}
	return out
}

// follow the Secrets named and no others, and wait a little for new ones.
func (s *secretWatches) follow(ctx context.Context, names map[types.NamespacedName]bool) {
	for name, w := range s.all {
		if !names[name] {
			w.stop()
			delete(s.all, name)
		}
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var fresh []*secretWatch
	for name := range names {
		if s.all[name] == nil {
			s.all[name] = s.start(ctx, name)
			fresh = append(fresh, s.all[name])
		}
	}
	for _, w := range fresh {
		select {
		case <-w.informer.Synced():
		case <-wait.Done():
			return
		}
	}
}

func (s *secretWatches) start(ctx context.Context, name types.NamespacedName) *secretWatch {
	ctx, stop := context.WithCancel(ctx)
	w := &secretWatch{informer: client.NewInformer[*corev1.Secret](s.conn, client.Scope{Namespace: name.Namespace, Name: name.Name}), stop: stop}
	w.informer.OnChange(func(_, _ *corev1.Secret) { s.changed() })
	s.running.Go(func() {
		if err := w.informer.Run(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("a TLS Secret cannot be watched", "secret", name.String(), "error", err)
		}
	})
	return w
}

func (s *secretWatches) get(namespace, name string) *corev1.Secret {
	if w := s.all[types.NamespacedName{Namespace: namespace, Name: name}]; w != nil {
		return found(w.informer.Get(namespace, name))
	}
	return nil
}

func (s *secretWatches) close() {
	for _, w := range s.all {
		w.stop()
	}
	s.running.Wait()
}
