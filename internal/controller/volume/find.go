package volume

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/owned"
)

// find a volume for a claim that has none, or make one.
func (c *Controller) find(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	about := event.Ref(c.claims.Kind(), claim)
	if _, old := claim.Annotations[corev1.BetaStorageClassAnnotation]; claim.Spec.StorageClassName == nil && !old {
		if d := defaultOf(c.classesIn.List("", nil)); d != nil { // a default that came later counts too (KEP-3333)
			out := claim.DeepCopy()
			out.Spec.StorageClassName = &d.Name
			_, err := c.claims.Update(ctx, out)
			return err
		}
	}
	var class *storagev1.StorageClass
	if name := claimClass(claim); name != "" {
		s, err := c.classes.Get(ctx, "", name)
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if err == nil {
			class = s
		}
	}
	node := claim.Annotations[selectedNode]
	volumes, err := c.volumes.List(ctx, "", client.ListOptions{})
	if err != nil {
		return err
	}
	if v := match(claim, volumes, waits(class) && node == ""); v != nil {
		return c.bind(ctx, claim, v)
	}
	if err := c.setPhase(ctx, claim, corev1.ClaimPending); err != nil {
		return err
	}
	switch {
	case waits(class) && node == "":
		c.record.Normal(about, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
		return nil
	case class == nil && claimClass(claim) == "":
		c.record.Normal(about, "FailedBinding", "no persistent volumes available for this claim and no storage class is set")
		return nil
	case class == nil:
		c.record.Warning(about, "ProvisioningFailed", "storageclass.storage.k8s.io %q not found", claimClass(claim))
		return nil
	case class.Provisioner == "kubernetes.io/no-provisioner":
		return nil
	case class.Provisioner != Provisioner:
		return c.callProvisioner(ctx, claim, class, about)
	}
	return c.provision(ctx, claim, class, node, about)
}

// callProvisioner tells the class's own provisioner by annotations.
func (c *Controller) callProvisioner(ctx context.Context, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, about corev1.ObjectReference) error {
	if claim.Annotations[provisioner] != class.Provisioner {
		out := claim.DeepCopy()
		annotate(&out.ObjectMeta, provisioner, class.Provisioner)
		annotate(&out.ObjectMeta, provisionerOld, class.Provisioner)
		if _, err := c.claims.Update(ctx, out); err != nil {
			return err
		}
	}
	c.record.Normal(about, "ExternalProvisioning", "Waiting for a volume to be created either by the external provisioner '%s' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.", class.Provisioner)
	return nil
}

// provision a folder of the node that the claim's first pod goes to.
func (c *Controller) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node string, about corev1.ObjectReference) error {
	why := ""
	switch {
	case node == "":
		why = fmt.Sprintf("%s needs volumeBindingMode: WaitForFirstConsumer in StorageClass %q, so that the node is known", Provisioner, class.Name)
	case slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteMany), slices.Contains(claim.Spec.AccessModes, corev1.ReadOnlyMany):
		why = Provisioner + " makes volumes on one node: accessModes can be ReadWriteOnce and ReadWriteOncePod"
	case claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock:
		why = Provisioner + " makes folders: volumeMode can be Filesystem"
	case claim.Spec.Selector != nil:
		why = "claim.Spec.Selector is not supported for dynamic provisioning"
	}
	if why != "" {
		c.record.Warning(about, "ProvisioningFailed", "%s", why)
		return nil
	}
	name := volumeName(claim)
	v, err := c.volumes.Create(ctx, localVolume(claim, class, node, c.Path(node, name)))
	switch {
	case apierrors.IsAlreadyExists(err):
		if v, err = c.volumes.Get(ctx, "", name); err != nil {
			return err
		}
	case err != nil:
		c.record.Warning(about, "ProvisioningFailed", "%v", err)
		return err
	default:
		c.record.Normal(about, "ProvisioningSucceeded", "Successfully provisioned volume %s using %s", name, Provisioner)
	}
	return c.bind(ctx, claim, v)
}

// protect an object from being deleted while it is used: with a finalizer from
// the first, which comes off when the object is deleted and not used. done says
// that the object was changed, or waits.
func protect[T api.Object](ctx context.Context, c client.Client[T], obj T, finalizer string, used bool) (done bool, err error) {
	has := slices.Contains(obj.GetFinalizers(), finalizer)
	deleted := obj.GetDeletionTimestamp() != nil
	var list []string
	switch {
	case !deleted && !has:
		list = append(slices.Clone(obj.GetFinalizers()), finalizer)
	case deleted && has && !used:
		list = slices.DeleteFunc(slices.Clone(obj.GetFinalizers()), func(f string) bool { return f == finalizer })
	default:
		return false, nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": obj.GetUID(), "resourceVersion": obj.GetResourceVersion(), "finalizers": list}})
	if err != nil {
		return false, err
	}
	_, err = c.Patch(ctx, obj.GetNamespace(), obj.GetName(), client.Patch{Type: types.MergePatchType, Data: patch}, client.WriteOptions{})
	return true, err
}

// ephemeral makes the claims of a pod's generic ephemeral volumes (KEP-1698).
func (c *Controller) ephemeral(ctx context.Context, key string) error {
	namespace, name := loop.Split(key)
	p, err := c.pods.Get(ctx, namespace, name)
	if err != nil || p.DeletionTimestamp != nil {
		return err
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.Ephemeral == nil || v.Ephemeral.VolumeClaimTemplate == nil {
			continue
		}
		t := v.Ephemeral.VolumeClaimTemplate.DeepCopy()
		_, err := c.forPods.Create(ctx, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{
				Name: p.Name + "-" + v.Name, Namespace: namespace, Labels: t.Labels, Annotations: t.Annotations,
				OwnerReferences: []metav1.OwnerReference{owned.Ref(p, corev1.SchemeGroupVersion.WithKind("Pod"))},
			},
			Spec: t.Spec,
		})
		switch {
		case apierrors.IsAlreadyExists(err):
			have, err := c.claims.Get(ctx, namespace, p.Name+"-"+v.Name)
			if err == nil && !metav1.IsControlledBy(have, p) {
				c.record.Warning(event.Ref(c.pods.Kind(), p), "FailedCreate", "PVC %s/%s was not created for pod %s/%s (pod is not owner)", namespace, have.Name, namespace, name)
			}
		case err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			c.record.Warning(event.Ref(c.pods.Kind(), p), "FailedCreate", "ephemeral volume %s: %v", v.Name, err)
			return err
		}
	}
	return nil
}
