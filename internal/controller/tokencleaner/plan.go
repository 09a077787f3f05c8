// Package tokencleaner takes back the tokens of service accounts that were made by
// themselves and kept in Secrets, by clusters before v1.24, once nobody has used
// them for a year (KEP-2799): first such a Secret is marked as invalid, and a year
// later deleted. Using the token puts both off. Secrets that somebody has made are
// never touched.
package tokencleaner

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Labels of a Secret: the day on which its token was last used, and since when it
// is not believed.
const (
	lastUsed     = "kubernetes.io/legacy-token-last-used"
	invalidSince = "kubernetes.io/legacy-token-invalid-since"
)

const day = "2006-01-02"

// action on a Secret.
type action int

const (
	nothing action = iota
	mark           // as invalid
	remove
)

// facts about a Secret.
type facts struct {
	since   time.Time // from when on use of tokens is known for certain
	owner   *corev1.ServiceAccount
	mounted bool // a pod refers to it
	unused  time.Duration
	now     time.Time
}

// decide what becomes of a Secret, and when to look again (0 = when something
// about it changes).
func decide(s *corev1.Secret, f facts) (action, time.Duration) {
	if s.Type != corev1.SecretTypeServiceAccountToken || s.DeletionTimestamp != nil || !madeByItself(s, f.owner) {
		return nothing, 0
	}
	// the last sign of life: when it was made, when tracking began, when it was used
	last := s.CreationTimestamp.Time
	if f.since.After(last) {
		last = f.since
	}
	if text, ok := s.Labels[lastUsed]; ok {
		at, err := time.Parse(day, text)
		if err != nil {
			return nothing, 0 // nobody can say
		}
		if end := at.AddDate(0, 0, 1); end.After(last) { // some time on that day
			last = end
		}
	}
	if left := last.Add(f.unused).Sub(f.now); left > 0 {
		return nothing, left
	}
	if f.mounted {
		return nothing, 24 * time.Hour // pods come and go without a word to the Secret
	}
	since, err := time.Parse(day, s.Labels[invalidSince])
	if err != nil {
		return mark, 0
	}
	if left := since.AddDate(0, 0, 1).Add(f.unused).Sub(f.now); left > 0 {
		return nothing, left
	}
	return remove, 0
}

// madeByItself says that a Secret is one that a service account lists.
func madeByItself(s *corev1.Secret, owner *corev1.ServiceAccount) bool {
	if owner == nil || owner.Name != s.Annotations[corev1.ServiceAccountNameKey] {
		return false
	}
	if uid := s.Annotations[corev1.ServiceAccountUIDKey]; uid != "" && uid != string(owner.UID) {
		return false
	}
	for _, r := range owner.Secrets {
		if r.Name == s.Name {
			return true
		}
	}
	return false
}

// refers says whether a pod refers to a Secret.
func refers(p *corev1.Pod, name string) bool {
	for _, r := range p.Spec.ImagePullSecrets {
		if r.Name == name {
			return true
		}
	}
	for i := range p.Spec.Volumes {
		if volume(&p.Spec.Volumes[i].VolumeSource, name) {
			return true
		}
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if container(list[i].Env, list[i].EnvFrom, name) {
				return true
			}
		}
	}
	for i := range p.Spec.EphemeralContainers {
		if c := &p.Spec.EphemeralContainers[i]; container(c.Env, c.EnvFrom, name) {
			return true
		}
	}
	return false
}

func volume(v *corev1.VolumeSource, name string) bool {
	is := func(r *corev1.LocalObjectReference) bool { return r != nil && r.Name == name }
	switch {
	case v.Secret != nil:
		return v.Secret.SecretName == name
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.Secret != nil && s.Secret.Name == name {
				return true
			}
		}
	case v.CSI != nil:
		return is(v.CSI.NodePublishSecretRef)
	case v.AzureFile != nil:
		return v.AzureFile.SecretName == name
	case v.CephFS != nil:
		return is(v.CephFS.SecretRef)
	case v.Cinder != nil:
		return is(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		return is(v.FlexVolume.SecretRef)
	case v.RBD != nil:
		return is(v.RBD.SecretRef)
	case v.ScaleIO != nil:
		return is(v.ScaleIO.SecretRef)
	case v.ISCSI != nil:
		return is(v.ISCSI.SecretRef)
	case v.StorageOS != nil:
		return is(v.StorageOS.SecretRef)
	}
	return false
}

func container(env []corev1.EnvVar, from []corev1.EnvFromSource, name string) bool {
	for i := range env {
		if f := env[i].ValueFrom; f != nil && f.SecretKeyRef != nil && f.SecretKeyRef.Name == name {
			return true
		}
	}
	for i := range from {
		if from[i].SecretRef != nil && from[i].SecretRef.Name == name {
			return true
		}
	}
	return false
}
