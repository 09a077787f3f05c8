package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/client"
)

// bench is a kubelet on a pretended runtime and API server.
type bench struct {
	t        *testing.T
	api      *memory
	engine   *engine
	endpoint string
	root     string
	stop     func()
}

func newBench(t *testing.T) *bench {
	if os.Geteuid() != 0 {
		t.Skip("the kubelet keeps control groups and mounts, which needs root")
	}
	b := &bench{t: t, api: &memory{catalog: kinds.Catalog(), objects: map[string]map[string]api.Object{}}, root: t.TempDir()}
	b.engine, b.endpoint = newEngine(t)
	b.start()
	return b
}

// start the kubelet; stop ends it and leaves the runtime as it is.
func (b *bench) start() {
	group := fmt.Sprintf("/proa-kubelet-test-%d", os.Getpid())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{
			Conn: b.api, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Name: "node", IPs: []string{"10.1.1.1"},
			RootDir: filepath.Join(b.root, "kubelet"), LogsDir: filepath.Join(b.root, "logs"), Runtime: b.endpoint, CgroupRoot: group,
		})
	}()
	stopped := false
	b.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			b.t.Errorf("the kubelet ended with %v", err)
		}
	}
	b.t.Cleanup(func() {
		b.stop()
		unix.Unmount(filepath.Join(b.root, "kubelet"), unix.MNT_DETACH)
		below, _ := filepath.Glob("/sys/fs/cgroup/*" + group)
		for _, dir := range append(below, "/sys/fs/cgroup"+group) {
			var all []string
			filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					all = append(all, path)
				}
				return nil
			})
			for _, path := range slices.Backward(all) {
				os.Remove(path)
			}
		}
	})
}

func (b *bench) create(name string, policy v1.RestartPolicy, change func(*v1.Pod)) {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: types.UID(name + "-uid"), Generation: 1},
		Spec: v1.PodSpec{NodeName: "node", RestartPolicy: policy, TerminationGracePeriodSeconds: ptr.To[int64](1),
			Containers: []v1.Container{{Name: "c", Image: "image:1", ImagePullPolicy: v1.PullIfNotPresent}}},
		Status: v1.PodStatus{Phase: v1.PodPending},
	}
	if change != nil {
		change(p)
	}
	if _, err := client.For[*v1.Pod](b.api).Create(b.t.Context(), p); err != nil {
		b.t.Fatal(err)
	}
}

// wait until the pod is as it should be; nil = gone.
func (b *bench) wait(name, what string, good func(*v1.Pod) bool) *v1.Pod {
	b.t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		p, _ := client.For[*v1.Pod](b.api).Get(b.t.Context(), "n", name)
		if good(p) {
			return p
		}
		select {
		case <-deadline:
			b.t.Fatalf("the pod is not %s: %+v", what, p)
		case <-tick.C:
		}
	}
}

func ready(p *v1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == v1.PodReady && c.Status == v1.ConditionTrue {
			return p.Status.Phase == v1.PodRunning
		}
	}
	return false
}

func (b *bench) exit(p *v1.Pod, code int32) {
	b.engine.mu.Lock()
	defer b.engine.mu.Unlock()
	b.engine.exit(p.Status.ContainerStatuses[0].ContainerID[len("engine://"):], code)
}

func (b *bench) calls(name string) int {
	b.engine.mu.Lock()
	defer b.engine.mu.Unlock()
	return b.engine.calls[name]
}

func TestPodLives(t *testing.T) {
	b := newBench(t)
	b.create("p", v1.RestartPolicyAlways, nil)
	p := b.wait("p", "ready", ready)
	if p.Status.PodIP != "10.0.0.1" || p.Status.HostIP != "10.1.1.1" || p.Status.QOSClass != v1.PodQOSBestEffort || p.Status.ObservedGeneration != 1 {
		t.Errorf("status: %+v", p.Status)
	}
	b.exit(p, 1)
	p = b.wait("p", "running again", func(p *v1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 1 || last.Reason != "Error" {
		t.Errorf("last state: %+v", last)
	}
	b.exit(p, 1)
	b.wait("p", "held back", func(p *v1.Pod) bool {
		w := p.Status.ContainerStatuses[0].State.Waiting
		return w != nil && w.Reason == "CrashLoopBackOff"
	})
	gone := p.DeepCopy()
	gone.DeletionTimestamp, gone.DeletionGracePeriodSeconds = ptr.To(metav1.Now()), ptr.To[int64](1)
	if _, err := client.For[*v1.Pod](b.api).Update(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	b.wait("p", "gone", func(p *v1.Pod) bool { return p == nil })
	deadline := time.Now().Add(20 * time.Second)
	for {
		left, _ := filepath.Glob(filepath.Join(b.root, "kubelet", "pods", "*"))
		b.engine.mu.Lock()
		n := len(b.engine.sandboxes) + len(b.engine.containers)
		b.engine.mu.Unlock()
		if n == 0 && len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sandboxes and containers and %v are left over", n, left)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestPodSurvivesTheKubelet(t *testing.T) {
	b := newBench(t)
	b.create("p", v1.RestartPolicyAlways, nil)
	before := b.wait("p", "ready", ready)
	b.stop()
	listed := b.calls("ListContainers")
	b.start()
	b.create("q", v1.RestartPolicyAlways, nil)
	b.wait("q", "ready", ready)
	after := b.wait("p", "ready", ready)
	if before.Status.ContainerStatuses[0].ContainerID != after.Status.ContainerStatuses[0].ContainerID || after.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Error("the container was restarted because the kubelet was")
	}
	if b.calls("ListContainers") == listed || b.calls("RunPodSandbox") != 2 {
		t.Errorf("%d sandboxes were made for two pods", b.calls("RunPodSandbox"))
	}
}

func TestPodEnds(t *testing.T) {
	b := newBench(t)
	b.create("p", v1.RestartPolicyNever, nil)
	b.exit(b.wait("p", "ready", ready), 3)
	p := b.wait("p", "failed", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed })
	if st := p.Status.ContainerStatuses[0].State.Terminated; st == nil || st.ExitCode != 3 {
		t.Errorf("state: %+v", p.Status.ContainerStatuses[0].State)
	}
}

func TestPodSaysWhatIsWrong(t *testing.T) {
	b := newBench(t)
	b.create("image", v1.RestartPolicyAlways, func(p *v1.Pod) { p.Spec.Containers[0].Image = "missing:1" })
	b.create("config", v1.RestartPolicyAlways, func(p *v1.Pod) {
		p.Spec.Containers[0].Env = []v1.EnvVar{{Name: "A", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "m"}, Key: "k"}}}}
	})
	b.create("much", v1.RestartPolicyAlways, func(p *v1.Pod) {
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: resource.MustParse("100000")}
	})
	waits := func(reason string) func(*v1.Pod) bool {
		return func(p *v1.Pod) bool {
			return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil && p.Status.ContainerStatuses[0].State.Waiting.Reason == reason
		}
	}
	b.wait("image", "ErrImagePull", waits("ErrImagePull"))
	b.wait("image", "ImagePullBackOff", waits("ImagePullBackOff"))
	b.wait("config", "CreateContainerConfigError", waits("CreateContainerConfigError"))
	b.wait("much", "OutOfcpu", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed && p.Status.Reason == "OutOfcpu" })
	m := &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "m", UID: "m"}, Data: map[string]string{"k": "v"}}
	if _, err := client.For[*v1.ConfigMap](b.api).Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	b.wait("config", "ready once its ConfigMap is there", ready)
}
