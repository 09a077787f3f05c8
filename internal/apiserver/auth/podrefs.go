package auth

import corev1 "k8s.io/api/core/v1"

// References to other objects of its namespace that a pod makes.
type podRefs struct {
	secret, configMap, claim, resourceClaim func(name string)
}

// visitRefs calls the functions for every reference of a pod.
func visitRefs(pod *corev1.Pod, to podRefs) {
	for _, s := range pod.Spec.ImagePullSecrets {
		to.secret(s.Name)
	}
	container := func(env []corev1.EnvVar, from []corev1.EnvFromSource) {
		for _, e := range env {
			if v := e.ValueFrom; v != nil {
				if v.SecretKeyRef != nil {
					to.secret(v.SecretKeyRef.Name)
				}
				if v.ConfigMapKeyRef != nil {
					to.configMap(v.ConfigMapKeyRef.Name)
				}
			}
		}
		for _, f := range from {
			if f.SecretRef != nil {
				to.secret(f.SecretRef.Name)
			}
			if f.ConfigMapRef != nil {
				to.configMap(f.ConfigMapRef.Name)
			}
		}
	}
	for i := range pod.Spec.InitContainers {
		container(pod.Spec.InitContainers[i].Env, pod.Spec.InitContainers[i].EnvFrom)
	}
	for i := range pod.Spec.Containers {
		container(pod.Spec.Containers[i].Env, pod.Spec.Containers[i].EnvFrom)
	}
	for i := range pod.Spec.EphemeralContainers {
		container(pod.Spec.EphemeralContainers[i].Env, pod.Spec.EphemeralContainers[i].EnvFrom)
	}
	for i := range pod.Spec.Volumes {
		visitVolume(pod, &pod.Spec.Volumes[i], to)
	}
	for _, c := range pod.Status.ResourceClaimStatuses {
		if c.ResourceClaimName != nil {
			to.resourceClaim(*c.ResourceClaimName)
		}
	}
	for _, c := range pod.Spec.ResourceClaims {
		if c.ResourceClaimName != nil {
			to.resourceClaim(*c.ResourceClaimName)
		}
	}
}

func visitVolume(pod *corev1.Pod, v *corev1.Volume, to podRefs) {
	local := func(r *corev1.LocalObjectReference) {
		if r != nil {
			to.secret(r.Name)
		}
	}
	switch {
	case v.Secret != nil:
		to.secret(v.Secret.SecretName)
	case v.ConfigMap != nil:
		to.configMap(v.ConfigMap.Name)
	case v.PersistentVolumeClaim != nil:
		to.claim(v.PersistentVolumeClaim.ClaimName)
	case v.Ephemeral != nil:
		to.claim(pod.Name + "-" + v.Name)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.Secret != nil {
				to.secret(s.Secret.Name)
			}
			if s.ConfigMap != nil {
				to.configMap(s.ConfigMap.Name)
			}
		}
	case v.CSI != nil:
		local(v.CSI.NodePublishSecretRef)
	case v.ISCSI != nil:
		local(v.ISCSI.SecretRef)
	case v.CephFS != nil:
		local(v.CephFS.SecretRef)
	case v.RBD != nil:
		local(v.RBD.SecretRef)
	case v.FlexVolume != nil:
		local(v.FlexVolume.SecretRef)
	case v.ScaleIO != nil:
		local(v.ScaleIO.SecretRef)
	case v.StorageOS != nil:
		local(v.StorageOS.SecretRef)
	case v.AzureFile != nil:
		to.secret(v.AzureFile.SecretName)
	}
}
