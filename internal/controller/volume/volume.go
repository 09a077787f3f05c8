// Package volume binds claims to volumes, makes volumes of local folders for
// claims that have a node, takes back what is released, protects what is in use,
// and makes the claims of pods' generic ephemeral volumes.
package volume

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	volumehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/loop"
)

const (
	claimFinalizer  = "kubernetes.io/pvc-protection"
	volumeFinalizer = "kubernetes.io/pv-protection"
	// ClassName of the class that is made where there is none, on local folders.
	ClassName = "standard"
	// Provisioner of that class.
	Provisioner = "proa.dev/local-path"
)

// Config of the controller.
type Config struct {
	// Path is the folder on a node for a volume of local-path provisioning.
	Path func(node, volume string) string
	// Remove such a folder from its node, with all that is in it.
	Remove func(node, path string) error
}

// The queue's keys: "c/NAMESPACE/NAME" claims, "v/NAME" volumes, "p/NAMESPACE/NAME"
// pods with ephemeral volumes, "class" for the default class.

// Controller of volumes and claims.
type Controller struct {
	Config
	queue     *loop.Queue
	claimsIn  *client.Informer[*corev1.PersistentVolumeClaim]
	volumesIn *client.Informer[*corev1.PersistentVolume]
	podsIn    *client.Informer[*corev1.Pod]
	classesIn *client.Informer[*storagev1.StorageClass]
	claims    client.Client[*corev1.PersistentVolumeClaim]
	volumes   client.Client[*corev1.PersistentVolume]
	pods      client.Client[*corev1.Pod]
	classes   client.Client[*storagev1.StorageClass]
	record    *event.Recorder
	// These act under accounts of their own.
	forPods, unusedClaims client.Client[*corev1.PersistentVolumeClaim]
	unusedVolumes         client.Client[*corev1.PersistentVolume]
}

// New controller.
func New(in *client.Informers, cfg Config, log *slog.Logger) *Controller {
	c := &Controller{
		Config:    cfg,
		queue:     loop.NewQueue("volume", log),
		claimsIn:  client.Shared[*corev1.PersistentVolumeClaim](in, client.Scope{}),
		volumesIn: client.Shared[*corev1.PersistentVolume](in, client.Scope{}),
		podsIn:    client.Shared[*corev1.Pod](in, client.Scope{}),
		classesIn: client.Shared[*storagev1.StorageClass](in, client.Scope{}),
		claims:    client.For[*corev1.PersistentVolumeClaim](in.Conn()),
		volumes:   client.For[*corev1.PersistentVolume](in.Conn()),
		pods:      client.For[*corev1.Pod](in.Conn()),
		classes:   client.For[*storagev1.StorageClass](in.Conn()),
		record:    event.New(in.Conn(), "persistentvolume-controller", "", log),

		forPods:       client.For[*corev1.PersistentVolumeClaim](in.As("ephemeral-volume-controller").Conn()),
		unusedClaims:  client.For[*corev1.PersistentVolumeClaim](in.As("pvc-protection-controller").Conn()),
		unusedVolumes: client.For[*corev1.PersistentVolume](in.As("pv-protection-controller").Conn()),
	}
	c.claimsIn.OnChange(func(old, now *corev1.PersistentVolumeClaim) {
		if now == nil {
			if old.Spec.VolumeName != "" {
				c.queue.Add("v/" + old.Spec.VolumeName)
			}
			if ref := metav1.GetControllerOfNoCopy(old); ref != nil && ref.Kind == "Pod" { // which needs another
				c.queue.Add("p/" + client.Key(old.Namespace, ref.Name))
			}
			return
		}
		c.queue.Add("c/" + client.Key(now.Namespace, now.Name))
	})
	c.volumesIn.OnChange(func(old, now *corev1.PersistentVolume) {
		v := now
		if v == nil {
			v = old
		} else {
			c.queue.Add("v/" + v.Name)
		}
		if r := v.Spec.ClaimRef; r != nil {
			c.queue.Add("c/" + client.Key(r.Namespace, r.Name))
		} else if now != nil { // it may be what a claim waits for
			c.wakePending()
		}
	})
	c.podsIn.OnChange(c.podChanged)
	c.classesIn.OnChange(func(_, now *storagev1.StorageClass) {
		if now != nil {
			c.wakePending()
		}
	})
	return c
}

func (c *Controller) wakePending() {
	for _, claim := range c.claimsIn.List("", nil) {
		if claim.Spec.VolumeName == "" {
			c.queue.Add("c/" + client.Key(claim.Namespace, claim.Name))
		}
	}
}

// podChanged: claims that nobody uses any more may go; ephemeral ones are made.
func (c *Controller) podChanged(old, now *corev1.Pod) {
	if now == nil {
		for _, name := range ClaimsOf(old) {
			c.queue.Add("c/" + client.Key(old.Namespace, name))
		}
		return
	}
	if old != nil || now.DeletionTimestamp != nil {
		return
	}
	for i := range now.Spec.Volumes {
		if now.Spec.Volumes[i].Ephemeral != nil {
			c.queue.Add("p/" + client.Key(now.Namespace, now.Name))
			return
		}
	}
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	c.queue.Add("class")
	return c.queue.Run(ctx, 4, c.reconcile, c.claimsIn.Synced(), c.volumesIn.Synced(), c.podsIn.Synced(), c.classesIn.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	var err error
	switch {
	case key == "class":
		err = c.makeClass(ctx)
	case strings.HasPrefix(key, "c/"):
		err = c.claim(ctx, key[2:])
	case strings.HasPrefix(key, "v/"):
		err = c.volume(ctx, key[2:])
	default:
		err = c.ephemeral(ctx, key[2:])
	}
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return 0, err
}

// makeClass unless somebody has made one, of any name.
func (c *Controller) makeClass(ctx context.Context) error {
	all, err := c.classes.List(ctx, "", client.ListOptions{})
	if err != nil || len(all) > 0 {
		return err
	}
	_, err = c.classes.Create(ctx, &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{Name: ClassName, Annotations: map[string]string{defaultClass: "true"}},
		Provisioner:       Provisioner,
		ReclaimPolicy:     ptr.To(corev1.PersistentVolumeReclaimDelete),
		VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer),
		// A folder has no size of its own: growing is to say so (package expand).
		AllowVolumeExpansion: ptr.To(true),
	})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// volume keeps a volume's finalizer and phase, and takes back a released one.
func (c *Controller) volume(ctx context.Context, name string) error {
	v, err := c.volumes.Get(ctx, "", name)
	if err != nil {
		return err
	}
	if done, err := protect(ctx, c.unusedVolumes, v, volumeFinalizer, v.Status.Phase == corev1.VolumeBound); done || err != nil {
		return err
	}
	var claim *corev1.PersistentVolumeClaim
	if r := v.Spec.ClaimRef; r != nil {
		if claim, err = c.claims.Get(ctx, r.Namespace, r.Name); apierrors.IsNotFound(err) {
			claim, err = nil, nil
		}
		if err != nil {
			return err
		}
	}
	phase := phaseOf(v, claim)
	if phase == corev1.VolumeFailed { // taking it back did: try again
		return c.reclaim(ctx, v)
	}
	if phase != v.Status.Phase {
		out := v.DeepCopy()
		out.Status.Phase, out.Status.Message, out.Status.Reason = phase, "", ""
		if v, err = c.volumes.UpdateStatus(ctx, out); err != nil {
			return err
		}
	}
	switch phase {
	case corev1.VolumeReleased:
		return c.reclaim(ctx, v)
	case corev1.VolumeBound:
		if claim.Spec.VolumeName == "" {
			c.queue.Add("c/" + client.Key(claim.Namespace, claim.Name))
		}
	}
	return nil
}

// reclaim a released volume as its policy says. Those of other provisioners are
// theirs to delete.
func (c *Controller) reclaim(ctx context.Context, v *corev1.PersistentVolume) error {
	if v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || v.Annotations[volumehelpers.AnnDynamicallyProvisioned] != Provisioner || v.Spec.HostPath == nil || v.DeletionTimestamp != nil {
		return nil
	}
	if err := c.Remove(nodeOf(v), v.Spec.HostPath.Path); err != nil {
		c.record.Warning(event.Ref(c.volumes.Kind(), v), "VolumeFailedDelete", "%v", err)
		if v.Status.Phase != corev1.VolumeFailed || v.Status.Message != err.Error() {
			out := v.DeepCopy()
			out.Status.Phase, out.Status.Message = corev1.VolumeFailed, err.Error()
			if _, err := c.volumes.UpdateStatus(ctx, out); err != nil {
				return err
			}
		}
		return fmt.Errorf("volume %s is not taken back: %w", v.Name, err)
	}
	return c.volumes.Delete(ctx, "", v.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &v.UID}})
}

// claim keeps a claim's finalizer, and binds it.
func (c *Controller) claim(ctx context.Context, key string) error {
	namespace, name := loop.Split(key)
	claim, err := c.claims.Get(ctx, namespace, name)
	if err != nil {
		return err
	}
	used := false
	if claim.DeletionTimestamp != nil {
		pods, err := c.pods.List(ctx, namespace, client.ListOptions{})
		if err != nil {
			return err
		}
		used = inUse(claim, pods)
	}
	if done, err := protect(ctx, c.unusedClaims, claim, claimFinalizer, used); done || err != nil {
		return err
	}
	if claim.DeletionTimestamp != nil && claim.Spec.VolumeName == "" {
		return nil
	}
	if claim.Spec.VolumeName == "" {
		return c.find(ctx, claim)
	}
	return c.complete(ctx, claim)
}

// setPhase of a claim that is not bound.
func (c *Controller) setPhase(ctx context.Context, claim *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumeClaimPhase) error {
	if claim.Status.Phase == phase {
		return nil
	}
	out := claim.DeepCopy()
	out.Status.Phase = phase
	_, err := c.claims.UpdateStatus(ctx, out)
	return err
}

// complete the binding of a claim that names its volume.
func (c *Controller) complete(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	about := event.Ref(c.claims.Kind(), claim)
	_, was := claim.Annotations[bindCompleted]
	v, err := c.volumes.Get(ctx, "", claim.Spec.VolumeName)
	switch {
	case apierrors.IsNotFound(err) && was:
		if claim.Status.Phase != corev1.ClaimLost {
			c.record.Warning(about, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
		}
		return c.setPhase(ctx, claim, corev1.ClaimLost)
	case apierrors.IsNotFound(err):
		return c.setPhase(ctx, claim, corev1.ClaimPending)
	case err != nil:
		return err
	case v.Spec.ClaimRef != nil && !forClaim(v, claim):
		if was {
			if claim.Status.Phase != corev1.ClaimLost {
				c.record.Warning(about, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
			}
			return c.setPhase(ctx, claim, corev1.ClaimLost)
		}
		c.record.Warning(about, "FailedBinding", "volume %q already bound to a different claim.", v.Name)
		return c.setPhase(ctx, claim, corev1.ClaimPending)
	}
	return c.bind(ctx, claim, v)
}

// bind writes both sides, the volume's first: it is what only one claim can have.
func (c *Controller) bind(ctx context.Context, claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) (err error) {
	if v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID == "" {
		out := v.DeepCopy()
		if v.Spec.ClaimRef == nil {
			annotate(&out.ObjectMeta, boundByUs, "yes")
		}
		out.Spec.ClaimRef = refTo(claim)
		if v, err = c.volumes.Update(ctx, out); err != nil {
			return err
		}
	}
	if v.Status.Phase != corev1.VolumeBound {
		out := v.DeepCopy()
		out.Status.Phase = corev1.VolumeBound
		if v, err = c.volumes.UpdateStatus(ctx, out); err != nil {
			return err
		}
	}
	if claim.Spec.VolumeName == "" || claim.Annotations[bindCompleted] == "" {
		out := claim.DeepCopy()
		if claim.Spec.VolumeName == "" {
			annotate(&out.ObjectMeta, boundByUs, "yes")
		}
		annotate(&out.ObjectMeta, bindCompleted, "yes")
		out.Spec.VolumeName = v.Name
		if claim, err = c.claims.Update(ctx, out); err != nil {
			return err
		}
	}
	st := *claim.Status.DeepCopy()
	st.Phase, st.AccessModes = corev1.ClaimBound, v.Spec.AccessModes
	if claim.Status.Phase != corev1.ClaimBound { // later its size is what was really grown to
		st.Capacity = corev1.ResourceList{corev1.ResourceStorage: v.Spec.Capacity[corev1.ResourceStorage]}
		st.CurrentVolumeAttributesClassName = v.Spec.VolumeAttributesClassName
	}
	if equality.Semantic.DeepEqual(st, claim.Status) {
		return nil
	}
	out := claim.DeepCopy()
	out.Status = st
	_, err = c.claims.UpdateStatus(ctx, out)
	return err
}

func annotate(m *metav1.ObjectMeta, key, value string) {
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	m.Annotations[key] = value
}
