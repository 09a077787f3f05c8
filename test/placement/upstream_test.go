package placement

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// programs is the folder of upstream's.
func programs(t *testing.T) string {
	dir := os.Getenv("PROA_UPSTREAM_BIN")
	if dir == "" {
		t.Skip("PROA_UPSTREAM_BIN does not name the folder that upstream's kube-scheduler v1.36 is in")
	}
	if _, err := os.Stat(filepath.Join(dir, "kube-scheduler")); err != nil {
		t.Skipf("upstream's kube-scheduler is not there: %v (PROA_UPSTREAM_BIN names its folder)", err)
	}
	return dir
}

// upstream's scheduler beside a Proa server that has none.
type upstream struct {
	t    *testing.T
	conn client.Conn
}

const schedulerConfig = `
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
percentageOfNodesToScore: 100
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: %s, qps: 1000, burst: 2000}
%s`

// startUpstream with the objects of a cluster. more is added to its configuration.
func startUpstream(t *testing.T, c *Cluster, more string) *upstream {
	bin, dir := programs(t), t.TempDir()
	url, conn := startServer(t)
	u := &upstream{t, conn}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"": {Server: url}}, Contexts: map[string]*clientcmdapi.Context{"": {}},
	}, kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range c.Objects {
		u.create(o)
	}
	u.settle(c)
	config := filepath.Join(dir, "scheduler.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, schedulerConfig, kubeconfig, more), 0o600); err != nil {
		t.Fatal(err)
	}
	u.run(filepath.Join(bin, "kube-scheduler"), "--config", config, "--secure-port", freePort(t), "--cert-dir", dir)
	return u
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// run a program until the test ends.
func (u *upstream) run(name string, args ...string) {
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if u.t.Failed() {
			text := out.String()
			u.t.Logf("%s: …%s", filepath.Base(name), text[max(0, len(text)-1500):])
		}
	})
}

// create an object, and its status where it has one.
func (u *upstream) create(o api.Object) {
	k, ok := u.conn.Catalog().Type(o)
	if !ok {
		u.t.Fatalf("no kind is stored as %T", o)
	}
	made, err := u.conn.Create(u.t.Context(), k, o.DeepCopyObject().(api.Object), client.WriteOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		u.t.Fatalf("%T %s: %v", o, o.GetName(), err)
	}
	if n, ok := o.(*corev1.Node); ok {
		out := made.(*corev1.Node).DeepCopy()
		out.Status = n.Status
		out.Status.Conditions[0].LastHeartbeatTime = metav1.Now()
		if _, err := u.conn.Update(u.t.Context(), k, out, client.WriteOptions{Subresource: "status"}); err != nil && !apierrors.IsConflict(err) {
			u.t.Fatalf("node %s: %v", o.GetName(), err)
		}
	}
}

// settle waits until volumes have their claims.
func (u *upstream) settle(c *Cluster) {
	u.until("volumes are bound", func() bool {
		for _, o := range c.Objects {
			switch o := o.(type) {
			case *corev1.PersistentVolume:
				v, err := client.For[*corev1.PersistentVolume](u.conn).Get(u.t.Context(), "", o.Name)
				if err != nil || o.Spec.ClaimRef != nil && v.Status.Phase != corev1.VolumeBound || v.Status.Phase == "" {
					return false
				}
			case *corev1.PersistentVolumeClaim:
				v, err := client.For[*corev1.PersistentVolumeClaim](u.conn).Get(u.t.Context(), o.Namespace, o.Name)
				if err != nil || o.Spec.VolumeName != "" && v.Status.Phase != corev1.ClaimBound {
					return false
				}
			}
		}
		return true
	})
}

func (u *upstream) until(what string, done func() bool) {
	u.t.Helper()
	late := time.After(60 * time.Second)
	for !done() {
		select {
		case <-late:
			u.t.Fatalf("not in time: %s", what)
		case <-time.After(3 * time.Millisecond):
		}
	}
}

// decides on a pod: it is on a node, or its condition says why not.
func (u *upstream) decides(p *corev1.Pod) (now *corev1.Pod, why string) {
	u.t.Helper()
	pods := client.For[*corev1.Pod](u.conn)
	u.create(p)
	u.until("a decision on "+p.Name, func() bool {
		got, err := pods.Get(u.t.Context(), p.Namespace, p.Name)
		if err != nil {
			u.t.Fatal(err)
		}
		now, why = got, ""
		for _, c := range got.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				why = c.Message
			}
		}
		if got.Spec.NodeName == "" {
			u.provide(got)
		}
		return got.Spec.NodeName != "" || why != ""
	})
	if now.Spec.NodeName == "" { // or it would be tried again, at a time that nobody knows
		if err := pods.Delete(u.t.Context(), p.Namespace, p.Name, metav1.DeleteOptions{}); err != nil {
			u.t.Fatal(err)
		}
	}
	return now, why
}

// provide the volumes that the driver of the test would make: for claims of the class
// "made" that have a node.
func (u *upstream) provide(p *corev1.Pod) {
	if p.Status.NominatedNodeName == "" {
		return
	}
	claims := client.For[*corev1.PersistentVolumeClaim](u.conn)
	for _, v := range p.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		c, err := claims.Get(u.t.Context(), p.Namespace, v.PersistentVolumeClaim.ClaimName)
		if err != nil || c.Spec.VolumeName != "" || c.Annotations["volume.kubernetes.io/selected-node"] == "" {
			continue
		}
		u.create(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "made-" + c.Name}, Spec: corev1.PersistentVolumeSpec{
			StorageClassName: *c.Spec.StorageClassName, Capacity: corev1.ResourceList{corev1.ResourceStorage: c.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes: c.Spec.AccessModes, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			ClaimRef:               &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: c.Namespace, Name: c.Name, UID: c.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.test", VolumeHandle: "made-" + c.Name}},
		}})
	}
}

func list[T api.Object](u *upstream) (all []api.Object) {
	got, err := client.For[T](u.conn).List(u.t.Context(), "", client.ListOptions{})
	if err != nil {
		u.t.Fatal(err)
	}
	for _, o := range got {
		all = append(all, o)
	}
	return all
}

// before any pod came: what there is.
func (u *upstream) before() []api.Object {
	return slices.Concat(list[*corev1.Namespace](u), list[*corev1.Node](u), list[*corev1.Service](u), list[*appsv1.ReplicaSet](u), u.storage())
}

// storage as it is now.
func (u *upstream) storage() []api.Object {
	return slices.Concat(list[*corev1.PersistentVolume](u), list[*corev1.PersistentVolumeClaim](u), list[*storagev1.StorageClass](u),
		list[*storagev1.CSINode](u), list[*storagev1.CSIDriver](u), list[*storagev1.CSIStorageCapacity](u))
}
