package clients

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/proa-dev/proa/test/clients/proa"
)

// helm is a command of helm's own program.
type helm struct {
	program, kubeconfig, home, namespace string
}

func newHelm(t *testing.T, s *proa.Server) helm {
	t.Helper()
	program := os.Getenv("PROA_HELM")
	if program == "" {
		program = goBuild(t, "helm.sh/helm/v4/cmd/helm")
	}
	return helm{program: program, kubeconfig: s.Kubeconfig(), home: t.TempDir()}
}

func (h helm) try(args ...string) (string, error) {
	cmd := exec.Command(h.program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+h.kubeconfig, "HELM_CACHE_HOME="+h.home, "HELM_CONFIG_HOME="+h.home, "HELM_DATA_HOME="+h.home, "HELM_NAMESPACE="+h.namespace)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h helm) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := h.try(args...)
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// revisions of a release as "1 superseded, 2 deployed".
func (h helm) revisions(t *testing.T, release string) string {
	t.Helper()
	var all []struct {
		Revision int
		Status   string
	}
	check(t, json.Unmarshal([]byte(h.run(t, "history", release, "-o", "json")), &all))
	var parts []string
	for _, r := range all {
		parts = append(parts, fmt.Sprint(r.Revision, " ", r.Status))
	}
	return strings.Join(parts, ", ")
}

// TestHelm installs a chart with a definition and with Jobs as hooks, upgrades it,
// rolls it back, has an upgrade fail that is rolled back by itself, tests it and
// uninstalls it. The pods of hooks and Deployment "run" on a node that is played.
func TestHelm(t *testing.T) {
	s := proa.Start(t)
	h := newHelm(t, s)
	api := clientFor(t, s.Config())
	k := startKubelet(t, api)
	chart := filepath.Join("testdata", "shop")
	ran := func(want string) {
		t.Helper()
		if got := k.took(); got != want {
			t.Errorf("hooks ran: %q, want %q", got, want)
		}
	}
	greeting := func(want, revision string) {
		t.Helper()
		m := must(api.CoreV1().ConfigMaps("shop").Get(t.Context(), "a", metav1.GetOptions{}))(t)
		if m.Data["greeting"] != want || m.Data["revision"] != revision || m.Data["knows"] != "deployments" {
			t.Errorf("the map has %v", m.Data)
		}
	}
	replicas := func(want int32, image string) {
		t.Helper()
		d := must(api.AppsV1().Deployments("shop").Get(t.Context(), "a", metav1.GetOptions{}))(t)
		if d.Status.ReadyReplicas != want || d.Status.UpdatedReplicas != want || d.Spec.Template.Spec.Containers[0].Image != image {
			t.Errorf("%d ready and %d updated of %d wanted, of image %s", d.Status.ReadyReplicas, d.Status.UpdatedReplicas, want, d.Spec.Template.Spec.Containers[0].Image)
		}
	}
	h.namespace = "shop"
	flags := []string{"--wait", "--timeout", "60s"}

	out := h.run(t, append([]string{"install", "a", chart, "--create-namespace"}, flags...)...)
	if !strings.Contains(out, "a says hello.") {
		t.Errorf("the notes are not shown:\n%s", out)
	}
	ran("pre-install post-install")
	greeting("hello", "1")
	replicas(2, "shop:1")
	if _, err := api.CoreV1().ConfigMaps("shop").Get(t.Context(), "a-early", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a hook that is to go when it is done: %v", err)
	}
	gadgets := must(dynamic.NewForConfig(s.Config()))(t).Resource(schema.GroupVersionResource{Group: "shop.example.com", Version: "v1", Resource: "gadgets"}).Namespace("shop")
	gadget := must(gadgets.Get(t.Context(), "a", metav1.GetOptions{}))(t)
	if size, _, _ := unstructured.NestedInt64(gadget.Object, "spec", "size"); size != 1 {
		t.Errorf("the gadget is %v", gadget.Object["spec"])
	}

	h.run(t, append([]string{"upgrade", "a", chart, "--set", "greeting=bye,replicas=3,image=shop:2,extra=false,color=green"}, flags...)...)
	ran("pre-upgrade post-upgrade")
	greeting("bye", "2")
	replicas(3, "shop:2")
	if _, err := api.CoreV1().Secrets("shop").Get(t.Context(), "a-extra", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("what the upgrade leaves out: %v", err)
	}
	if out, err := h.try("upgrade", "a", chart, "--set", "color=beige"); err == nil || !strings.Contains(out, `Unsupported value: "beige"`) {
		t.Errorf("a value that the schema refuses: %v\n%s", err, out)
	}
	k.took() // its hooks

	h.run(t, append([]string{"rollback", "a", "1"}, flags...)...)
	ran("pre-rollback post-rollback")
	greeting("hello", "1")
	replicas(2, "shop:1")
	must(api.CoreV1().Secrets("shop").Get(t.Context(), "a-extra", metav1.GetOptions{}))(t)
	if got := h.revisions(t, "a"); got != "1 superseded, 2 superseded, 3 failed, 4 deployed" {
		t.Errorf("the history is %s", got)
	}

	if out, err := h.try("upgrade", "a", chart, "--set", "broken=true,greeting=oops", "--rollback-on-failure", "--wait", "--timeout", "5s"); err == nil {
		t.Errorf("an upgrade whose pods never get ready:\n%s", out)
	}
	greeting("hello", "1")
	k.took()
	h.run(t, "test", "a")
	ran("test")
	if got := h.run(t, "get", "values", "a", "--all", "-o", "json"); !strings.Contains(got, `"greeting":"hello"`) {
		t.Errorf("its values are %s", got)
	}
	for _, part := range []string{"manifest", "hooks", "notes", "metadata"} {
		if h.run(t, "get", part, "a") == "" {
			t.Errorf("no %s", part)
		}
	}
	if out := h.run(t, "list", "-q"); strings.TrimSpace(out) != "a" {
		t.Errorf("releases: %q", out)
	}
	h.run(t, append([]string{"uninstall", "a"}, flags...)...)
	ran("pre-delete post-delete")
	if left := s.Kubectl("", "get", "deployments,services,configmaps,gadgets", "-n", "shop", "-o", "name"); strings.TrimSpace(left) != "configmap/kube-root-ca.crt" {
		t.Errorf("it leaves %s", strings.Fields(left))
	}
}

// TestHelmLargeChart installs cert-manager's own chart (some fifty objects: roles,
// webhooks, definitions, Deployments) twice over and takes it away.
func TestHelmLargeChart(t *testing.T) {
	s := proa.Start(t)
	h := newHelm(t, s)
	h.namespace = "cert-manager"
	startKubelet(t, clientFor(t, s.Config()))
	chart := filepath.Join(moduleDir(t, "github.com/cert-manager/cert-manager"), "deploy", "charts", "cert-manager")
	args := []string{chart, "--set", "crds.enabled=true,crds.keep=false,startupapicheck.enabled=false", "--wait", "--timeout", "60s"}
	h.run(t, append([]string{"install", "cm", "--create-namespace"}, args...)...)
	if out := s.Kubectl("", "get", "crd", "-o", "name"); strings.Count(out, "cert-manager.io") != 6 {
		t.Errorf("definitions: %s", out)
	}
	h.run(t, append([]string{"upgrade", "cm", "--set", "replicaCount=2"}, args...)...)
	h.run(t, "uninstall", "cm", "--wait", "--timeout", "60s")
	if out := s.Kubectl("", "get", "crd,clusterrole,validatingwebhookconfigurations", "-o", "name"); strings.Contains(out, "cert-manager") {
		t.Errorf("it leaves %s", out)
	}
}
