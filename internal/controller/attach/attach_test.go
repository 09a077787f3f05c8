package attach_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/attach"
	"github.com/proa-dev/proa/test/controllertest"
)

const driver, held = "d.example.com", "external-attacher/d-example-com"

// attacher plays a driver's: it holds attachments by a finalizer, attaches what is
// asked for and lets go of what is deleted. Two at once is what it must never see
// of a disk for one node.
func attacher(c *controllertest.Cluster) {
	all := client.For[*storagev1.VolumeAttachment](c.Conn)
	controllertest.Play[*storagev1.VolumeAttachment](c, "attacher", 1, func(ctx context.Context, name string) (time.Duration, error) {
		a, err := all.Get(ctx, "", name)
		if err != nil || a.Spec.Attacher != driver {
			return 0, nil
		}
		out := a.DeepCopy()
		switch {
		case a.DeletionTimestamp != nil:
			out.Finalizers = nil
			_, err = all.Update(ctx, out)
		case len(a.Finalizers) == 0:
			out.Finalizers = []string{held}
			_, err = all.Update(ctx, out)
		case !a.Status.Attached:
			mine, err := all.List(ctx, "", client.ListOptions{})
			if err != nil {
				return 0, err
			}
			for _, b := range mine {
				if b.Name != a.Name && *b.Spec.Source.PersistentVolumeName == *a.Spec.Source.PersistentVolumeName && b.Status.Attached && !strings.HasPrefix(*b.Spec.Source.PersistentVolumeName, "shared") {
					c.T.Errorf("%s is attached to %s and %s", *b.Spec.Source.PersistentVolumeName, b.Spec.NodeName, a.Spec.NodeName)
				}
			}
			out.Status.Attached = true
			_, err = all.UpdateStatus(ctx, out)
			return 0, err
		}
		return 0, err
	})
}

// world of two nodes, volumes of a driver and claims that are bound to them.
func world(t *testing.T, fail int) *controllertest.Cluster {
	c := controllertest.New(t, fail)
	for _, name := range []string{"n1", "n2"} {
		controllertest.Create(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
		controllertest.Change(c, "", name, "status", func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		})
	}
	return c
}

func disk(c *controllertest.Cluster, name, driver string, mode corev1.PersistentVolumeAccessMode) {
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{mode}
	claim := controllertest.Create(c, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: modes, VolumeName: name, StorageClassName: ptr.To(""), Resources: corev1.VolumeResourceRequirements{Requests: size},
	}})
	controllertest.Create(c, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: size, AccessModes: modes, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		ClaimRef:               &corev1.ObjectReference{Namespace: "default", Name: name, UID: claim.UID},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "h-" + name}},
	}})
	controllertest.Change(c, "default", name, "status", func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimBound })
}

func pod(c *controllertest.Cluster, name, node, claim string) {
	controllertest.Create(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: corev1.PodSpec{
		NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}, TerminationGracePeriodSeconds: ptr.To[int64](0),
		Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}},
	}})
}

// on are the nodes that a volume is attached to, and the node that it is reported to.
func on(c *controllertest.Cluster, volume string) (attached, reported []string) {
	for _, a := range controllertest.List[*storagev1.VolumeAttachment](c) {
		if a.Status.Attached && a.DeletionTimestamp == nil && *a.Spec.Source.PersistentVolumeName == volume {
			attached = append(attached, a.Spec.NodeName)
		}
	}
	for _, n := range controllertest.List[*corev1.Node](c) {
		if slices.ContainsFunc(n.Status.VolumesAttached, func(v corev1.AttachedVolume) bool { return strings.HasSuffix(string(v.Name), "^h-"+volume) }) {
			reported = append(reported, n.Name)
		}
	}
	slices.Sort(attached)
	return attached, reported
}

func is(c *controllertest.Cluster, volume string, want ...string) func() bool {
	return func() bool {
		attached, reported := on(c, volume)
		return slices.Equal(attached, want) && slices.Equal(reported, want)
	}
}

func end(c *controllertest.Cluster, pod string) {
	controllertest.Delete[*corev1.Pod](c, "default", pod, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
}

// TestConverges with faults: disks go where pods need them, one node at a time
// unless they may be on several, and stay while a node uses them.
func TestConverges(t *testing.T) {
	c := world(t, 20)
	controllertest.Create(c, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "never.example.com"}, Spec: storagev1.CSIDriverSpec{AttachRequired: ptr.To(false)}})
	disk(c, "one", driver, corev1.ReadWriteOnce)
	disk(c, "shared", driver, corev1.ReadWriteMany)
	disk(c, "never", "never.example.com", corev1.ReadWriteOnce)
	somebodys := controllertest.Create(c, &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "somebodys"}, Spec: storagev1.VolumeAttachmentSpec{
		Attacher: "other.example.com", NodeName: "n1", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To("one")},
	}})
	attacher(c)
	c.Run(attach.New(c.Informers, controllertest.Log()))
	pod(c, "a", "n1", "one")
	pod(c, "s1", "n1", "shared")
	pod(c, "s2", "n2", "shared")
	pod(c, "x", "n1", "never")
	c.Settles("attached, and the nodes know it", func() bool {
		return is(c, "one", "n1")() && is(c, "shared", "n1", "n2")()
	})
	uses := func(node string, names ...corev1.UniqueVolumeName) {
		controllertest.Change(c, "", node, "status", func(n *corev1.Node) { n.Status.VolumesInUse = names })
	}
	uses("n1", "kubernetes.io/csi/"+driver+"^h-one")
	pod(c, "b", "n2", "one")
	end(c, "a")
	end(c, "s2")
	c.Settles("it stays where it is mounted; the other is detached from one", func() bool {
		return is(c, "one", "n1")() && is(c, "shared", "n1")()
	})
	uses("n1")
	c.Settles("it has gone over", is(c, "one", "n2"))
	uses("n2", "kubernetes.io/csi/"+driver+"^h-one")
	controllertest.Change(c, "", "n2", "", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoExecute}}
	})
	end(c, "b")
	c.Settles("a node that is out of service is not waited for", is(c, "one"))
	pod(c, "again", "n1", "one")
	c.Settles("attached again", is(c, "one", "n1"))
	end(c, "s1")
	end(c, "x")
	end(c, "again")
	c.Settles("nothing is left but what somebody else has made", func() bool {
		all := controllertest.List[*storagev1.VolumeAttachment](c)
		return len(all) == 1 && all[0].UID == somebodys.UID && is(c, "one")() && is(c, "shared")()
	})
}

// TestTakesOver: what a run before has attached stays where it is needed, and goes
// where it is not, also when its volume is gone.
func TestTakesOver(t *testing.T) {
	c := world(t, 20)
	attacher(c)
	for _, name := range []string{"needed", "free", "lost"} {
		disk(c, name, driver, corev1.ReadWriteOnce)
		pod(c, name, "n1", name)
	}
	ctx, stop := context.WithCancel(t.Context())
	first := client.NewInformers(c.Conn)
	run := attach.New(first, controllertest.Log())
	var wg sync.WaitGroup
	wg.Go(func() { _ = first.Run(ctx) })
	wg.Go(func() { _ = run.Run(ctx) })
	c.Until("all are attached", func() bool {
		return is(c, "needed", "n1")() && is(c, "free", "n1")() && is(c, "lost", "n1")()
	})
	stop()
	wg.Wait()
	end(c, "free")
	end(c, "lost")
	controllertest.Delete[*corev1.PersistentVolume](c, "", "lost", metav1.DeleteOptions{})
	before := controllertest.List[*storagev1.VolumeAttachment](c)
	c.Run(attach.New(c.Informers, controllertest.Log()))
	c.Settles("one is attached, as it was", func() bool {
		all := controllertest.List[*storagev1.VolumeAttachment](c)
		return len(all) == 1 && is(c, "needed", "n1")() && slices.ContainsFunc(before, func(a *storagev1.VolumeAttachment) bool { return a.UID == all[0].UID })
	})
}

// TestSays in events what became of a disk.
func TestSays(t *testing.T) {
	c := world(t, 0)
	disk(c, "one", driver, corev1.ReadWriteOnce)
	c.Run(attach.New(c.Informers, controllertest.Log()))
	said := func(pod, reason, text string) func() bool {
		return func() bool {
			return slices.ContainsFunc(controllertest.List[*corev1.Event](c), func(e *corev1.Event) bool {
				return e.InvolvedObject.Name == pod && e.Reason == reason && e.Message == text && e.Source.Component == "attachdetach-controller"
			})
		}
	}
	pod(c, "a", "n1", "one")
	var name string
	c.Until("asked for", func() bool {
		all := controllertest.List[*storagev1.VolumeAttachment](c)
		if len(all) == 1 {
			name = all[0].Name
		}
		return name != ""
	})
	controllertest.Change(c, "", name, "status", func(a *storagev1.VolumeAttachment) {
		a.Status.AttachError = &storagev1.VolumeError{Time: metav1.Now(), Message: "no such disk"}
	})
	c.Until("it failed", said("a", "FailedAttachVolume", `AttachVolume.Attach failed for volume "one" : no such disk`))
	controllertest.Change(c, "", name, "status", func(a *storagev1.VolumeAttachment) {
		a.Status = storagev1.VolumeAttachmentStatus{Attached: true}
	})
	c.Until("it succeeded", said("a", "SuccessfulAttachVolume", `AttachVolume.Attach succeeded for volume "one" `))
	pod(c, "b", "n2", "one")
	c.Until("another has it", said("b", "FailedAttachVolume", `Multi-Attach error for volume "one" Volume is already used by pod(s) a`))
}
