package cluster

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
)

// TestControllersAreAudited: controllers and scheduler act under the names that
// Kubernetes has for them, and the audit log has what they do.
func TestControllersAreAudited(t *testing.T) {
	var log string
	_, admin := started(t, func(dir string, s *Server) {
		log = filepath.Join(dir, "audit.log")
		s.Audit.PolicyFile = file(t, filepath.Join(dir, "audit.yaml"), "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, verbs: [get, list, watch]}, {level: Request}]\n")
		s.Audit.Log.Path = log
	})
	root, labels := kubernetes.NewForConfigOrDie(admin), map[string]string{"app": "web"}
	if _, err := root.AppsV1().Deployments("default").Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const account = "system:serviceaccount:kube-system:"
	want := map[string]*auditv1.Event{}
	for _, what := range []string{
		account + "deployment-controller create replicasets", account + "replicaset-controller create pods", "system:kube-scheduler patch pods/status",
		account + "service-account-controller create serviceaccounts", account + "root-ca-cert-publisher create configmaps", "system:apiserver create apiservices",
	} {
		want[what] = nil
	}
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		missing := 0
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range bytes.Split(text, []byte("\n")) {
			e := &auditv1.Event{}
			if json.Unmarshal(line, e) != nil || e.ObjectRef == nil || e.Stage != auditv1.StageResponseComplete {
				continue
			}
			resource := strings.TrimSuffix(e.ObjectRef.Resource+"/"+e.ObjectRef.Subresource, "/")
			if _, ok := want[e.User.Username+" "+e.Verb+" "+resource]; ok {
				want[e.User.Username+" "+e.Verb+" "+resource] = e
			}
		}
		for what, e := range want {
			if e == nil {
				missing++
			}
			if e == nil && time.Since(start) > 20*time.Second {
				t.Errorf("never: %s", what)
			}
		}
		if missing == 0 {
			break
		}
		if t.Failed() {
			return
		}
	}
	e := want[account+"replicaset-controller create pods"]
	if !slices.Equal(e.User.Groups, []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"}) || e.Level != auditv1.LevelRequest || e.RequestObject == nil ||
		e.ResponseObject != nil || e.ResponseStatus.Code != 201 || e.ObjectRef.Namespace != "default" || e.RequestURI != "/api/v1/namespaces/default/pods" || !strings.HasPrefix(e.UserAgent, "kube-controller-manager/v1.36") {
		t.Errorf("got %+v", e)
	}
	pods, err := root.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(pods.Items) != 1 {
		t.Fatal(pods, err)
	}
	var managers []string
	for _, m := range pods.Items[0].ManagedFields {
		managers = append(managers, m.Manager+" "+m.Subresource)
	}
	if !slices.Equal(managers, []string{"kube-controller-manager ", "kube-scheduler status"}) {
		t.Errorf("the pod is managed by %q", managers)
	}
}
