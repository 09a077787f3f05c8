package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/cache"
)

// ServiceAccount gives every pod an account, the account's pull secrets, and a
// volume with a token, the cluster's CA and the namespace's name in each
// container that does not mount something of its own there.
type ServiceAccount struct {
	Accounts cache.Typed[*corev1.ServiceAccount]
}

const (
	tokenMountPath = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenSeconds   = 3607 // what the issuer takes as "nobody asked for a lifetime"
)

// Name implements Plugin.
func (*ServiceAccount) Name() string { return "ServiceAccount" }

// Admit implements Mutator.
func (p *ServiceAccount) Admit(_ context.Context, w *Write) error {
	pod, ok := w.Object.(*corev1.Pod)
	if !ok || w.Operation != Create || w.Subresource != "" {
		return nil
	}
	if isMirror(pod) {
		return p.mirror(w, pod)
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = "default"
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	sa, ok := p.Accounts.Get(w.Namespace, pod.Spec.ServiceAccountName)
	if !ok {
		return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name, fmt.Errorf("error looking up service account %s/%s: serviceaccount %q not found",
			w.Namespace, pod.Spec.ServiceAccountName, pod.Spec.ServiceAccountName))
	}
	if automount(sa, pod) {
		mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = append([]corev1.LocalObjectReference(nil), sa.ImagePullSecrets...)
	}
	return nil
}

// mirror pods are static pods' images in the API: they may not reach for tokens.
func (p *ServiceAccount) mirror(w *Write, pod *corev1.Pod) error {
	forbid := func(text string) error {
		return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name, fmt.Errorf("%s", text))
	}
	if pod.Spec.ServiceAccountName != "" {
		return forbid("a mirror pod may not reference service accounts")
	}
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil {
			return forbid("a mirror pod may not reference secrets")
		}
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				return forbid("a mirror pod may not use ServiceAccountToken volume projections")
			}
		}
	}
	return nil
}

func isMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

func automount(sa *corev1.ServiceAccount, pod *corev1.Pod) bool {
	if pod.Spec.AutomountServiceAccountToken != nil {
		return *pod.Spec.AutomountServiceAccountToken
	}
	return sa.AutomountServiceAccountToken == nil || *sa.AutomountServiceAccountToken
}

func mountToken(pod *corev1.Pod) {
	name := ""
	for _, v := range pod.Spec.Volumes {
		if len(v.Name) > len(tokenVolume) && v.Name[:len(tokenVolume)] == tokenVolume && v.Projected != nil {
			name = v.Name
		}
	}
	needed := false
	if name == "" {
		name = tokenVolume + rand.String(5)
		needed = true
	}
	mounted := false
	mount := func(list []corev1.Container) {
		for i := range list {
			if !mountsAt(&list[i], tokenMountPath) {
				list[i].VolumeMounts = append(list[i].VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenMountPath})
				mounted = true
			}
		}
	}
	mount(pod.Spec.InitContainers)
	mount(pod.Spec.Containers)
	if needed && mounted {
		pod.Spec.Volumes = append(pod.Spec.Volumes, tokenVolumeSource(name))
	}
}

const tokenVolume = "kube-api-access-"

func mountsAt(c *corev1.Container, path string) bool {
	for _, m := range c.VolumeMounts {
		if m.MountPath == path {
			return true
		}
	}
	return false
}

func tokenVolumeSource(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](tokenSeconds)}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}}}
}
