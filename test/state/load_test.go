package state

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/etcd"
)

// readyWithin is how long a server with 50,000 objects may take to be ready.
const readyWithin = 3 * time.Second

// TestStartsWithManyObjects makes 50,000 objects, half of them pods, and measures
// how soon a server that finds them is ready, and what it then holds of memory.
func TestStartsWithManyObjects(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 50,000 objects")
	}
	dir := t.TempDir()
	many(t, filepath.Join(dir, "etcd"), 50_000)
	s := newServer(t, dir)
	var best, least time.Duration
	for i := range 3 {
		took := s.up()
		used := processorTime(t, s)
		t.Logf("ready after %s, %s of processor time, %s", took.Round(time.Millisecond), used, memory(t, s))
		if i == 0 || took < best {
			best = took
		}
		if i == 0 || used < least {
			least = used
		}
		if i == 0 {
			list, err := s.api.CoreV1().ConfigMaps("many").List(t.Context(), metav1.ListOptions{Limit: 1})
			if err != nil || list.RemainingItemCount == nil || *list.RemainingItemCount < 24_999 {
				t.Errorf("not everything is there: %v, %v", list.RemainingItemCount, err)
			}
		}
		s.stop()
	}
	switch {
	case least > readyWithin:
		t.Errorf("%s of processor time at best: %s is the limit", least, readyWithin)
	case best > readyWithin && busy(t):
		t.Logf("ready after %s at best, on a machine that others keep busy: %s of processor time are what counts here", best, least)
	case best > readyWithin:
		t.Errorf("ready after %s at best: %s is the limit", best, readyWithin)
	}
}

// memory of the process, as the kernel says.
func memory(t *testing.T, s *server) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "VmHWM") {
			all = append(all, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(all, ", ")
}

// processorTime that the process has used: what the start costs however busy the
// machine is. The kernel counts it in hundredths of a second (proc_pid_stat(5)).
func processorTime(t *testing.T, s *server) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	return time.Duration(number(fields[11])+number(fields[12])) * 10 * time.Millisecond
}

// busy says whether more wants to run than there are processors.
func busy(t *testing.T) bool {
	t.Helper()
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	var load float64
	if _, err := fmt.Sscan(string(data), &load); err != nil {
		t.Fatal(err)
	}
	return load > float64(runtime.NumCPU())
}

// many objects straight into a store: pods and ConfigMaps by turns.
func many(t *testing.T, dir string, n int) {
	t.Helper()
	st, err := etcd.Open(t.Context(), etcd.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	of := map[string]*api.Kind{}
	for _, k := range kinds.Catalog().All() {
		if k.Group == "" {
			of[k.Resource] = k
		}
	}
	var writes []store.Write
	add := func(resource string, obj api.Object) {
		k := of[resource]
		obj.SetUID(types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", len(writes))))
		obj.SetCreationTimestamp(metav1.Now())
		if k.Default != nil {
			k.Default(obj)
		}
		value, err := wire.EncodeStorage(k, obj)
		if err != nil {
			t.Fatal(err)
		}
		writes = append(writes, store.Write{Key: k.Key(obj.GetNamespace(), obj.GetName()), Value: value})
	}
	add("namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "many"}, Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}}})
	for i := range n / 2 {
		meta := metav1.ObjectMeta{Namespace: "many", Name: fmt.Sprintf("o%06d", i), Labels: map[string]string{"app": fmt.Sprint(i % 100)}}
		add("configmaps", &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"a": strings.Repeat("x", 500)}})
		add("pods", &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{
			NodeName: fmt.Sprintf("node-%d", i%500), SchedulerName: "nobody",
			Containers: []corev1.Container{{Name: "a", Image: "registry.example.com/a:1", Env: []corev1.EnvVar{{Name: "A", Value: "b"}}}},
		}})
	}
	for len(writes) > 0 {
		batch := writes[:min(500, len(writes))]
		writes = writes[len(batch):]
		if _, err := st.Commit(t.Context(), batch...); err != nil {
			t.Fatal(err)
		}
	}
}
