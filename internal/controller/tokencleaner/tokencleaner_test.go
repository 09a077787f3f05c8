package tokencleaner

import (
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/test/controllertest"
)

func date(text string) time.Time {
	at, err := time.Parse(day, text)
	if err != nil {
		panic(err)
	}
	return at
}

func TestDecide(t *testing.T) {
	const d = 24 * time.Hour
	owner := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "sa", UID: "u"}, Secrets: []corev1.ObjectReference{{Name: "s"}}}
	others := owner.DeepCopy()
	others.Secrets[0].Name = "x"
	for _, c := range []struct {
		name   string
		change func(*corev1.Secret, *facts)
		want   action
		again  time.Duration
	}{
		{"never used", func(*corev1.Secret, *facts) {}, mark, 0},
		{"marked", func(s *corev1.Secret, _ *facts) { s.Labels = map[string]string{invalidSince: "2024-01-01"} }, remove, 0},
		{"marked not long ago", func(s *corev1.Secret, _ *facts) { s.Labels = map[string]string{invalidSince: "2025-06-22"} }, nothing, 2 * d},
		{"marked badly", func(s *corev1.Secret, _ *facts) { s.Labels = map[string]string{invalidSince: "x"} }, mark, 0},
		{"used not long ago", func(s *corev1.Secret, _ *facts) { s.Labels = map[string]string{lastUsed: "2025-06-23"} }, nothing, 3 * d},
		{"used long ago", func(s *corev1.Secret, _ *facts) { s.Labels = map[string]string{lastUsed: "2025-06-20"} }, mark, 0},
		{"used although marked", func(s *corev1.Secret, _ *facts) {
			s.Labels = map[string]string{invalidSince: "2024-01-01", lastUsed: "2025-06-23"}
		}, nothing, 3 * d},
		{"used on a day that is none", func(s *corev1.Secret, _ *facts) { s.Labels = map[string]string{lastUsed: "yesterday"} }, nothing, 0},
		{"made not long ago", func(s *corev1.Secret, _ *facts) { s.CreationTimestamp = metav1.NewTime(date("2025-06-22")) }, nothing, d},
		{"not tracked for long", func(_ *corev1.Secret, f *facts) { f.since = date("2025-06-22") }, nothing, d},
		{"mounted", func(_ *corev1.Secret, f *facts) { f.mounted = true }, nothing, d},
		{"of another type", func(s *corev1.Secret, _ *facts) { s.Type = corev1.SecretTypeOpaque }, nothing, 0},
		{"being deleted", func(s *corev1.Secret, _ *facts) { s.DeletionTimestamp = &metav1.Time{} }, nothing, 0},
		{"made by somebody", func(_ *corev1.Secret, f *facts) { f.owner = others }, nothing, 0},
		{"of nobody", func(_ *corev1.Secret, f *facts) { f.owner = nil }, nothing, 0},
		{"of an earlier account", func(s *corev1.Secret, _ *facts) { s.Annotations[corev1.ServiceAccountUIDKey] = "v" }, nothing, 0},
	} {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", CreationTimestamp: metav1.NewTime(date("2020-01-01")), Annotations: map[string]string{corev1.ServiceAccountNameKey: "sa", corev1.ServiceAccountUIDKey: "u"}}, Type: corev1.SecretTypeServiceAccountToken}
		f := facts{since: date("2023-01-01"), owner: owner, unused: 365 * d, now: date("2026-06-21")}
		c.change(s, &f)
		if got, again := decide(s, f); got != c.want || again != c.again {
			t.Errorf("%s: %v after %s, want %v after %s", c.name, got, again, c.want, c.again)
		}
	}
}

func TestRefers(t *testing.T) {
	volumes := func(v ...corev1.VolumeSource) corev1.PodSpec {
		var s corev1.PodSpec
		for _, one := range v {
			s.Volumes = append(s.Volumes, corev1.Volume{VolumeSource: one})
		}
		return s
	}
	env := []corev1.EnvVar{{Name: "A", Value: "b"}, {ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}}}
	from := []corev1.EnvFromSource{{}, {SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}}
	for name, spec := range map[string]corev1.PodSpec{
		"pull":      {ImagePullSecrets: []corev1.LocalObjectReference{{Name: "s"}}},
		"volume":    volumes(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}),
		"projected": volumes(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{}, {Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}}}}),
		"csi":       volumes(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{NodePublishSecretRef: &corev1.LocalObjectReference{Name: "s"}}}),
		"env":       {Containers: []corev1.Container{{}, {Env: env}}},
		"env from":  {InitContainers: []corev1.Container{{EnvFrom: from}}},
		"ephemeral": {EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Env: env}}}},
	} {
		p := &corev1.Pod{Spec: spec}
		if !refers(p, "s") || refers(p, "t") {
			t.Error(name)
		}
	}
}

func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	controllertest.Create(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}})
	controllertest.Create(c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: Tracking, Namespace: "kube-system"}, Data: map[string]string{"since": "2020-01-01"}})
	secret := func(name string) {
		controllertest.Create(c, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Annotations: map[string]string{corev1.ServiceAccountNameKey: "sa"}}, Type: corev1.SecretTypeServiceAccountToken})
	}
	secret("itself")
	secret("somebody")
	var mu sync.Mutex
	now := time.Now().AddDate(2, 0, 0)
	c.Run(New(c.Informers, Config{Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }}, controllertest.Log()))
	controllertest.Create(c, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "sa", Namespace: "default"}, Secrets: []corev1.ObjectReference{{Name: "itself"}}})
	get := func(name string) *corev1.Secret { return controllertest.Get[*corev1.Secret](c, "default", name) }
	c.Until("marked", func() bool { s := get("itself"); return s != nil && s.Labels[invalidSince] == now.UTC().Format(day) })
	mu.Lock()
	now = now.AddDate(2, 0, 0)
	mu.Unlock()
	controllertest.Create(c, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "nudge", Namespace: "default"}, Secrets: []corev1.ObjectReference{{Name: "itself"}}})
	c.Until("deleted", func() bool { return get("itself") == nil })
	if s := get("somebody"); s == nil || len(s.Labels) > 0 {
		t.Errorf("one that somebody has made: %+v", s)
	}
	controllertest.Delete[*corev1.ConfigMap](c, "kube-system", Tracking, metav1.DeleteOptions{})
	c.Settles("the use of tokens is tracked again", func() bool {
		m := controllertest.Get[*corev1.ConfigMap](c, "kube-system", Tracking)
		return m != nil && m.Data["since"] == now.UTC().Format(day)
	})
	controllertest.Change(c, "kube-system", Tracking, "", func(m *corev1.ConfigMap) { m.Data = nil })
	c.Settles("and from when", func() bool {
		return controllertest.Get[*corev1.ConfigMap](c, "kube-system", Tracking).Data["since"] != ""
	})
}
