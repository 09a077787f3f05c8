// Package source reads the objects that pods refer to, ConfigMaps and Secrets
// above all, and watches each one for as long as a pod on the node refers to it.
// A kubelet may read no others.
package source

import (
	"context"
	"fmt"
	"sync"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// Sources of one node's pods.
type Sources struct {
	ctx      context.Context
	conn     client.Conn
	services *client.Informer[*v1.Service]
	changed  func(types.UID) // something a pod refers to has changed

	mu   sync.Mutex
	refs map[ref]*watched
	pods map[types.UID]map[ref]bool
}

type ref struct{ kind, namespace, name string }

type watched struct {
	pods map[types.UID]bool
	stop context.CancelFunc
	get  func() (api.Object, bool) // what the watch knows; false until it has begun
}

// New sources, which watch until ctx ends. changed must not block.
func New(ctx context.Context, conn client.Conn, services *client.Informer[*v1.Service], changed func(types.UID)) *Sources {
	return &Sources{ctx: ctx, conn: conn, services: services, changed: changed, refs: map[ref]*watched{}, pods: map[types.UID]map[ref]bool{}}
}

// Hold watches what a pod refers to, and no longer what it referred to before.
func (s *Sources) Hold(p *v1.Pod) {
	want := References(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.pods[p.UID]
	for r := range want {
		if have[r] {
			continue
		}
		w := s.refs[r]
		if w == nil {
			w = s.watch(r)
			s.refs[r] = w
		}
		w.pods[p.UID] = true
	}
	for r := range have {
		if !want[r] {
			s.release(r, p.UID)
		}
	}
	s.pods[p.UID] = want
}

// Drop a pod that is gone.
func (s *Sources) Drop(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range s.pods[uid] {
		s.release(r, uid)
	}
	delete(s.pods, uid)
}

func (s *Sources) release(r ref, uid types.UID) {
	w := s.refs[r]
	delete(w.pods, uid)
	if len(w.pods) == 0 {
		w.stop()
		delete(s.refs, r)
	}
}

func (s *Sources) watch(r ref) *watched {
	ctx, stop := context.WithCancel(s.ctx)
	w := &watched{pods: map[types.UID]bool{}, stop: stop}
	switch r.kind {
	case "configmap":
		follow[*v1.ConfigMap](ctx, s, r, w)
	case "secret":
		follow[*v1.Secret](ctx, s, r, w)
	}
	return w
}

const again = 10 * time.Second

func follow[T api.Object](ctx context.Context, s *Sources, r ref, w *watched) {
	scope := client.Scope{Namespace: r.namespace, Name: r.name}
	var mu sync.Mutex
	var now *client.Informer[T]
	w.get = func() (api.Object, bool) {
		mu.Lock()
		i := now
		mu.Unlock()
		if i == nil {
			return nil, false
		}
		select {
		case <-i.Synced():
			obj, ok := i.Get(r.namespace, r.name)
			if !ok {
				return nil, false
			}
			return obj, true
		default:
			return nil, false
		}
	}
	go func() {
		for {
			i := client.NewInformer[T](s.conn, scope)
			i.OnChange(func(_, _ T) { s.tell(w) })
			mu.Lock()
			now = i
			mu.Unlock()
			_ = i.Run(ctx)
			select { // refused: the server may not know yet that the pod is ours
			case <-ctx.Done():
				return
			case <-time.After(again):
			}
		}
	}()
}

func (s *Sources) tell(w *watched) {
	s.mu.Lock()
	pods := make([]types.UID, 0, len(w.pods))
	for uid := range w.pods {
		pods = append(pods, uid)
	}
	s.mu.Unlock()
	for _, uid := range pods {
		s.changed(uid)
	}
}

// read what the watch knows, or ask.
func read[T api.Object](s *Sources, r ref) (T, error) {
	s.mu.Lock()
	w := s.refs[r]
	s.mu.Unlock()
	if w != nil {
		if obj, ok := w.get(); ok {
			return obj.(T), nil
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
	defer cancel()
	return client.For[T](s.conn).Get(ctx, r.namespace, r.name)
}

// ConfigMap by name.
func (s *Sources) ConfigMap(namespace, name string) (*v1.ConfigMap, error) {
	return read[*v1.ConfigMap](s, ref{"configmap", namespace, name})
}

// Secret by name.
func (s *Sources) Secret(namespace, name string) (*v1.Secret, error) {
	return read[*v1.Secret](s, ref{"secret", namespace, name})
}

// Ready waits until the services are known, which every container is told of.
func (s *Sources) Ready(ctx context.Context) error {
	select {
	case <-s.services.Synced():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Services of a namespace and the one of the API server.
func (s *Sources) Services(namespace string) []*v1.Service {
	list := s.services.List(namespace, nil)
	if namespace != v1.NamespaceDefault {
		if k, ok := s.services.Get(v1.NamespaceDefault, "kubernetes"); ok {
			list = append(list, k)
		}
	}
	return list
}

// Claim of a pod and the volume it is bound to, nil if none. Claims are asked for
// and not watched: a node may only get them.
func (s *Sources) Claim(ctx context.Context, namespace, name string) (*v1.PersistentVolumeClaim, *v1.PersistentVolume, error) {
	pvc, err := client.For[*v1.PersistentVolumeClaim](s.conn).Get(ctx, namespace, name)
	if err != nil || pvc.Spec.VolumeName == "" {
		return pvc, nil, err
	}
	pv, err := client.For[*v1.PersistentVolume](s.conn).Get(ctx, "", pvc.Spec.VolumeName)
	if apierrors.IsNotFound(err) {
		return pvc, nil, nil
	}
	return pvc, pv, err
}

// Token of a service account.
func (s *Sources) Token(ctx context.Context, namespace, account string, r *authv1.TokenRequest) (*authv1.TokenRequest, error) {
	kind := client.For[*v1.ServiceAccount](s.conn).Kind()
	if account == "" {
		account = "default"
	}
	got, err := s.conn.Post(ctx, kind, namespace, account, "token", r)
	if err != nil {
		return nil, err
	}
	t, ok := got.(*authv1.TokenRequest)
	if !ok {
		return nil, fmt.Errorf("the API server answered a token request with a %T", got)
	}
	return t, nil
}

// References of a pod to objects by name.
func References(p *v1.Pod) map[ref]bool {
	refs := map[ref]bool{}
	add := func(kind, name string) {
		if name != "" {
			refs[ref{kind, p.Namespace, name}] = true
		}
	}
	for _, s := range p.Spec.ImagePullSecrets {
		add("secret", s.Name)
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		switch {
		case v.ConfigMap != nil:
			add("configmap", v.ConfigMap.Name)
		case v.Secret != nil:
			add("secret", v.Secret.SecretName)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					add("configmap", s.ConfigMap.Name)
				}
				if s.Secret != nil {
					add("secret", s.Secret.Name)
				}
			}
		}
	}
	for _, list := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers, ephemeral(p)} {
		for i := range list {
			container(&list[i], add)
		}
	}
	return refs
}

func ephemeral(p *v1.Pod) []v1.Container {
	var list []v1.Container
	for i := range p.Spec.EphemeralContainers {
		list = append(list, v1.Container(p.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	return list
}

func container(c *v1.Container, add func(kind, name string)) {
	for _, f := range c.EnvFrom {
		if f.ConfigMapRef != nil {
			add("configmap", f.ConfigMapRef.Name)
		}
		if f.SecretRef != nil {
			add("secret", f.SecretRef.Name)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			continue
		}
		if r := e.ValueFrom.ConfigMapKeyRef; r != nil {
			add("configmap", r.Name)
		}
		if r := e.ValueFrom.SecretKeyRef; r != nil {
			add("secret", r.Name)
		}
	}
}
