package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/kubelet/pod"
)

// file of a volume that shows objects.
type file struct {
	data []byte
	mode os.FileMode
	uid  *int64
}

// project reads what a configMap, secret, downwardAPI or projected volume shows.
// kind is how its path names it.
func (m *Manager) project(ctx context.Context, p *v1.Pod, v *v1.Volume) (files map[string]file, kind string, renew time.Time, err error) {
	files = map[string]file{}
	switch {
	case v.ConfigMap != nil:
		c := v.ConfigMap
		return files, "configmap", renew, m.configMap(files, p, c.Name, c.Items, mode(c.DefaultMode), ptr.Deref(c.Optional, false))
	case v.Secret != nil:
		c := v.Secret
		return files, "secret", renew, m.secret(files, p, c.SecretName, c.Items, mode(c.DefaultMode), ptr.Deref(c.Optional, false))
	case v.DownwardAPI != nil:
		return files, "downward-api", renew, m.downward(files, p, v.DownwardAPI.Items, mode(v.DownwardAPI.DefaultMode))
	}
	all := mode(v.Projected.DefaultMode)
	for i := range v.Projected.Sources {
		s := &v.Projected.Sources[i]
		switch {
		case s.ConfigMap != nil:
			err = m.configMap(files, p, s.ConfigMap.Name, s.ConfigMap.Items, all, ptr.Deref(s.ConfigMap.Optional, false))
		case s.Secret != nil:
			err = m.secret(files, p, s.Secret.Name, s.Secret.Items, all, ptr.Deref(s.Secret.Optional, false))
		case s.DownwardAPI != nil:
			err = m.downward(files, p, s.DownwardAPI.Items, all)
		case s.ServiceAccountToken != nil:
			var at time.Time
			at, err = m.token(ctx, files, p, s.ServiceAccountToken, all)
			if renew.IsZero() || at.Before(renew) {
				renew = at
			}
		default:
			err = fmt.Errorf("projected volume source %d is of a kind this node does not support; use configMap, secret, downwardAPI or serviceAccountToken", i)
		}
		if err != nil {
			return nil, "", renew, err
		}
	}
	return files, "projected", renew, nil
}

func mode(m *int32) os.FileMode { return os.FileMode(ptr.Deref(m, 0o644)) }

func (m *Manager) configMap(files map[string]file, p *v1.Pod, name string, items []v1.KeyToPath, all os.FileMode, optional bool) error {
	c, err := m.Sources.ConfigMap(p.Namespace, name)
	if err != nil {
		if apierrors.IsNotFound(err) && optional {
			return nil
		}
		return err
	}
	data := make(map[string][]byte, len(c.Data)+len(c.BinaryData))
	for k, v := range c.Data {
		data[k] = []byte(v)
	}
	for k, v := range c.BinaryData {
		data[k] = v
	}
	return pick(files, data, items, all, optional)
}

func (m *Manager) secret(files map[string]file, p *v1.Pod, name string, items []v1.KeyToPath, all os.FileMode, optional bool) error {
	s, err := m.Sources.Secret(p.Namespace, name)
	if err != nil {
		if apierrors.IsNotFound(err) && optional {
			return nil
		}
		return err
	}
	return pick(files, s.Data, items, all, optional)
}

func pick(files map[string]file, data map[string][]byte, items []v1.KeyToPath, all os.FileMode, optional bool) error {
	if len(items) == 0 {
		for k, v := range data {
			files[k] = file{data: v, mode: all}
		}
		return nil
	}
	for _, i := range items {
		v, ok := data[i.Key]
		if !ok {
			if optional {
				continue
			}
			return fmt.Errorf("references non-existent config key: %s", i.Key)
		}
		f := file{data: v, mode: all}
		if i.Mode != nil {
			f.mode = os.FileMode(*i.Mode)
		}
		path, err := clean(i.Path)
		if err != nil {
			return err
		}
		files[path] = f
	}
	return nil
}

func (m *Manager) downward(files map[string]file, p *v1.Pod, items []v1.DownwardAPIVolumeFile, all os.FileMode) error {
	for i := range items {
		it := &items[i]
		f := file{mode: all}
		if it.Mode != nil {
			f.mode = os.FileMode(*it.Mode)
		}
		var text string
		var err error
		if it.FieldRef != nil {
			text, err = m.Field(p, it.FieldRef.FieldPath)
		} else if it.ResourceFieldRef != nil {
			text, err = m.Resource(p, it.ResourceFieldRef)
		}
		if err != nil {
			return err
		}
		f.data = []byte(text)
		path, err := clean(it.Path)
		if err != nil {
			return err
		}
		files[path] = f
	}
	return nil
}

// clean refuses paths that would leave the volume; validation does so before us.
func clean(path string) (string, error) {
	c := filepath.Clean(path)
	if filepath.IsAbs(c) || c == "." || strings.HasPrefix(c, "..") {
		return "", fmt.Errorf("invalid path %q: it must be relative and must not begin with ..", path)
	}
	return c, nil
}

type tokenKey struct {
	pod      types.UID
	audience string
	seconds  int64
}

type token struct {
	value   string
	renew   time.Time
	expires time.Time
}

// token of the pod's service account, bound to the pod; renewed at 80 % of its
// life or after a day.
func (m *Manager) token(ctx context.Context, files map[string]file, p *v1.Pod, s *v1.ServiceAccountTokenProjection, all os.FileMode) (time.Time, error) {
	key := tokenKey{p.UID, s.Audience, ptr.Deref(s.ExpirationSeconds, 3600)}
	m.mu.Lock()
	t, ok := m.tokens[key]
	m.mu.Unlock()
	if now := time.Now(); !ok || now.After(t.renew) {
		r := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
			ExpirationSeconds: &key.seconds,
			BoundObjectRef:    &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID},
		}}
		if s.Audience != "" {
			r.Spec.Audiences = []string{s.Audience}
		}
		got, err := m.Sources.Token(ctx, p.Namespace, p.Spec.ServiceAccountName, r)
		switch {
		case err == nil:
			life := got.Status.ExpirationTimestamp.Sub(now)
			t = token{got.Status.Token, now.Add(min(life*8/10, 24*time.Hour)), got.Status.ExpirationTimestamp.Time}
			m.mu.Lock()
			if m.tokens == nil {
				m.tokens = map[tokenKey]token{}
			}
			m.tokens[key] = t
			m.mu.Unlock()
		case ok && now.Before(t.expires):
			t.renew = now.Add(time.Minute) // the old one is good for a while
		default:
			return time.Time{}, fmt.Errorf("failed to fetch token: %w", err)
		}
	}
	f := file{data: []byte(t.value), mode: all, uid: oneUser(p)}
	if f.uid != nil || pod.FSGroup(p) != nil {
		f.mode = 0o600
	}
	path, err := clean(s.Path)
	files[path] = f
	return t.renew, err
}

// oneUser is the user that all containers run as, nil if they differ.
func oneUser(p *v1.Pod) *int64 {
	var user *int64
	for _, list := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			u := (*int64)(nil)
			if sc := p.Spec.SecurityContext; sc != nil {
				u = sc.RunAsUser
			}
			if sc := list[i].SecurityContext; sc != nil && sc.RunAsUser != nil {
				u = sc.RunAsUser
			}
			if u == nil || user != nil && *user != *u {
				return nil
			}
			user = u
		}
	}
	return user
}

// Forget the tokens of a pod that is gone.
func (m *Manager) forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.tokens {
		if k.pod == uid {
			delete(m.tokens, k)
		}
	}
}
