package state

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const key32 = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

// TestUpstreamAndBack goes the way of a cluster from kubeadm to Proa and back:
// upstream's programs write objects of every kind, some encrypted; a snapshot of
// their etcd is restored, and Proa shows the same; Proa changes things; then
// upstream's etcd and kube-apiserver start on what Proa has left, and show what it
// showed.
func TestUpstreamAndBack(t *testing.T) {
	accounts := accountKey(t)
	secretsBy := func(first, second string) string {
		return encryption(t, "secrets, widgets.example.com: "+first+","+second+",{identity: {}}", "configmaps: {secretbox: {keys: [{name: box, secret: "+key32+"}]}}")
	}
	cbc, gcm := "{aescbc: {keys: [{name: old, secret: "+key32+"}]}}", "{aesgcm: {keys: [{name: new, secret: "+key32+"}]}}"

	// Upstream.
	dir := t.TempDir()
	etcd := startEtcd(t, filepath.Join(dir, "upstream"))
	theirs := startKubeAPIServer(t, etcd.url, accounts, "--encryption-provider-config", secretsBy(cbc, gcm))
	controllers := theirs.startControllers(t, accounts)
	create(t, theirs.conf, "testdata/objects.yaml")
	create(t, theirs.conf, "testdata/widgets.yaml")
	settled(t, theirs.api)
	token := tokenOf(t, theirs.api)
	controllers.stop()
	before := everything(t, theirs.conf)
	if raw := etcd.raw(t, "/registry/secrets/demo/password"); !strings.HasPrefix(raw, "k8s:enc:aescbc:v1:old:") {
		t.Errorf("upstream has stored %q", raw)
	}
	snapshot := filepath.Join(dir, "snapshot.db")
	etcd.save(t, snapshot)
	list, err := theirs.api.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	last := number(list.ResourceVersion)
	theirs.stop()
	etcd.stop()

	// Proa, with a new first key.
	s := newServer(t, filepath.Join(dir, "proa"), "--service-cluster-ip-range", services, "--service-account-issuer", issuer,
		"--service-account-key-file", accounts, "--service-account-signing-key-file", accounts, "--token-auth-file", ownerToken(t),
		"--encryption-provider-config", secretsBy(gcm, cbc))
	t.Log(proa(t, "etcd", "snapshot", "status", snapshot, "-o", "json"))
	proa(t, "etcd", "snapshot", "restore", snapshot, "--data-dir", s.dir)
	t.Logf("ready after %s", s.up())
	t.Run("Proa shows what upstream did", func(t *testing.T) { same(t, before, everything(t, s.conf)) })
	t.Run("Proa goes on", func(t *testing.T) { goesOn(t, s, last, token) })
	if t.Failed() {
		t.Log(s.tail())
	}
	quiet(t, s)
	ours := everything(t, s.conf)
	s.stop()

	// Upstream again, on Proa's own files.
	etcd = startEtcd(t, filepath.Join(s.dir, "etcd"))
	for key, prefix := range map[string]string{
		"secrets/demo/password": "k8s:enc:aesgcm:v1:new:", "secrets/demo/later": "k8s:enc:aesgcm:v1:new:", "configmaps/demo/later": "k8s:enc:secretbox:v1:box:",
		"example.com/widgets/demo/three": "k8s:enc:aesgcm:v1:new:", "pods/demo/later": "k8s\x00",
	} {
		if raw := etcd.raw(t, "/registry/"+key); !strings.HasPrefix(raw, prefix) {
			t.Errorf("Proa has stored %s as %.40q, want %s", key, raw, prefix)
		}
	}
	theirs = startKubeAPIServer(t, etcd.url, accounts, "--encryption-provider-config", secretsBy(cbc, gcm))
	t.Run("upstream shows what Proa did", func(t *testing.T) { same(t, ours, everything(t, theirs.conf)) })
	t.Run("upstream goes on", func(t *testing.T) {
		secret, err := theirs.api.CoreV1().Secrets("demo").Get(t.Context(), "later", metav1.GetOptions{})
		if err != nil || string(secret.Data["a"]) != "b" {
			t.Fatal(secret, err)
		}
		secret.Data["a"] = []byte("c")
		if _, err = theirs.api.CoreV1().Secrets("demo").Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		newService(t, theirs.api, "after")
		web, err := theirs.api.AppsV1().Deployments("demo").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil || *web.Spec.Replicas != 3 {
			t.Error(web, err)
		}
	})
}

// settled waits until the controllers have done what follows from the objects.
func settled(t *testing.T, api *kubernetes.Clientset) {
	t.Helper()
	eventually(t, time.Minute, "the controllers act", func() error {
		pods, err := api.CoreV1().Pods("demo").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		secret, err := api.CoreV1().Secrets("demo").Get(t.Context(), "robot-token", metav1.GetOptions{})
		switch {
		case err != nil:
			return err
		case len(pods.Items) < 5: // web 2, db 1, once 2
			return fmt.Errorf("%d pods", len(pods.Items))
		case len(secret.Data["token"]) == 0:
			return fmt.Errorf("no token yet")
		}
		return nil
	})
}

// tokenOf a service account.
func tokenOf(t *testing.T, api *kubernetes.Clientset) string {
	t.Helper()
	tr, err := api.CoreV1().ServiceAccounts("demo").CreateToken(t.Context(), "robot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return tr.Status.Token
}

// own is what each server keeps for itself, or sees to.
func own(name string) bool {
	for _, part := range []string{
		"v1/namespaces /", "v1/endpoints default/kubernetes", "discovery.k8s.io/v1/endpointslices default/kubernetes", "v1/componentstatuses ",
		"coordination.k8s.io/v1/leases kube-system/apiserver-", "apiregistration.k8s.io/v1/apiservices ", "v1/configmaps kube-system/",
		"metrics.k8s.io/", "extensions/v1beta1/", // upstream does not serve it any more
	} {
		if strings.HasPrefix(name, part) {
			return true
		}
	}
	return false
}

// same holds two servers' answers against each other, for what has the same
// revision in both.
func same(t *testing.T, was, is map[string]*unstructured.Unstructured) {
	t.Helper()
	equal, moved := 0, []string{}
	for name, a := range was {
		b := is[name]
		switch {
		case b == nil && own(name):
		case b == nil:
			t.Errorf("%s is not there", name)
		case a.GetResourceVersion() != b.GetResourceVersion():
			if a.GetUID() != b.GetUID() && !own(name) {
				t.Errorf("%s is another one", name)
			}
			moved = append(moved, name)
		default:
			equal++
			for _, d := range differences("", a.Object, b.Object) {
				t.Errorf("%s %s", name, d)
			}
		}
	}
	var more []string
	for name := range is {
		if was[name] == nil {
			more = append(more, name)
		}
	}
	slices.Sort(moved)
	slices.Sort(more)
	t.Logf("%d the same, %d written since: %s; %d more: %s", equal, len(moved), strings.Join(moved, ", "), len(more), strings.Join(more, ", "))
}

// goesOn does what an owner does after a restore.
func goesOn(t *testing.T, s *server, last int64, token string) {
	api := s.api
	stale, err := api.CoreV1().Secrets("demo").Get(t.Context(), "password", metav1.GetOptions{})
	if err != nil || string(stale.Data["password"]) != "correct horse battery staple" {
		t.Fatal(stale, err)
	}
	written, err := api.CoreV1().Secrets("demo").Update(t.Context(), stale, metav1.UpdateOptions{})
	if err != nil || number(written.ResourceVersion) <= last || written.ResourceVersion == stale.ResourceVersion {
		t.Errorf("an update that says the same does not encrypt anew: %v", err)
	}
	again, err := api.CoreV1().Secrets("demo").Update(t.Context(), written, metav1.UpdateOptions{})
	if err != nil || again.ResourceVersion != written.ResourceVersion {
		t.Errorf("an update that says the same writes although nothing is stale: %v", err)
	}
	if _, err := api.CoreV1().Secrets("demo").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "later"}, StringData: map[string]string{"a": "b"}}, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := api.CoreV1().ConfigMaps("demo").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "later"}}, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "later"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "registry.example.com/a:1"}}}}
	if _, err := api.CoreV1().Pods("demo").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := api.CoreV1().ConfigMaps("demo").Watch(t.Context(), metav1.ListOptions{ResourceVersion: fmt.Sprint(last)}); !apierrors.IsResourceExpired(err) {
		w, err := api.CoreV1().ConfigMaps("demo").Watch(t.Context(), metav1.ListOptions{ResourceVersion: fmt.Sprint(last)})
		if err == nil {
			e := <-w.ResultChan()
			if st, ok := e.Object.(*metav1.Status); !ok || st.Code != 410 {
				t.Errorf("a watch from before the restore gets %v", e)
			}
		} else if !apierrors.IsResourceExpired(err) {
			t.Error(err)
		}
	}
	newService(t, api, "later")
	widgets := dynamic.NewForConfigOrDie(s.conf).Resource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}).Namespace("demo")
	widget := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": map[string]any{"name": "three"}, "spec": map[string]any{"size": int64(5)}}}
	if _, err := widgets.Create(t.Context(), widget, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	widget.SetName("huge")
	widget.Object["spec"] = map[string]any{"size": int64(500)}
	if _, err := widgets.Create(t.Context(), widget, metav1.CreateOptions{}); !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) {
		t.Errorf("the admission policy says nothing: %v", err)
	}
	scale, err := api.AppsV1().Deployments("demo").GetScale(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	scale.Spec.Replicas = 3
	if _, err := api.AppsV1().Deployments("demo").UpdateScale(t.Context(), "web", scale, metav1.UpdateOptions{}); err != nil {
		t.Error(err)
	}
	eventually(t, 30*time.Second, "the controllers act", func() error {
		d, err := api.AppsV1().Deployments("demo").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil || d.Status.Replicas != 3 {
			return fmt.Errorf("%d replicas, %v", d.Status.Replicas, err)
		}
		return nil
	})
	robot := rest.CopyConfig(s.conf)
	robot.TLSClientConfig.CertFile, robot.TLSClientConfig.KeyFile, robot.TLSClientConfig.CertData, robot.TLSClientConfig.KeyData = "", "", nil, nil
	robot.BearerToken = token
	asRobot := kubernetes.NewForConfigOrDie(robot)
	if _, err := asRobot.CoreV1().ConfigMaps("demo").Get(t.Context(), "settings", metav1.GetOptions{}); err != nil {
		t.Errorf("a token that upstream has given is not good: %v", err)
	}
	if _, err := asRobot.CoreV1().Secrets("demo").Get(t.Context(), "password", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("the robot reads Secrets: %v", err)
	}
	if err := api.BatchV1().Jobs("demo").Delete(t.Context(), "once", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// newService has an address that no other has, and a port that is taken is refused.
func newService(t *testing.T, api *kubernetes.Clientset, name string) {
	t.Helper()
	one := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80, NodePort: 30123}}}}
	if _, err := api.CoreV1().Services("demo").Create(t.Context(), one, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a node port that is taken: %v", err)
	}
	one.Spec.Ports[0].NodePort = 0
	made, err := api.CoreV1().Services("demo").Create(t.Context(), one, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := api.CoreV1().Services("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range all.Items {
		if other.UID == made.UID {
			continue
		}
		if other.Spec.ClusterIP == made.Spec.ClusterIP {
			t.Errorf("%s has the address of %s", name, other.Name)
		}
		for _, p := range other.Spec.Ports {
			if p.NodePort == made.Spec.Ports[0].NodePort {
				t.Errorf("%s has the port of %s", name, other.Name)
			}
		}
	}
}

// quiet waits until nothing is written any more.
func quiet(t *testing.T, s *server) {
	t.Helper()
	was := ""
	for end := time.Now().Add(20 * time.Second); ; {
		list, err := s.api.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if list.ResourceVersion == was {
			return
		}
		if time.Now().After(end) {
			break
		}
		was = list.ResourceVersion
		<-time.After(2 * time.Second)
	}
	a, b := everything(t, s.conf), everything(t, s.conf)
	for name, o := range b {
		if a[name] == nil || a[name].GetResourceVersion() != o.GetResourceVersion() {
			t.Errorf("%s is written again and again, from %v to %v", name, a[name], o)
		}
	}
	t.Fatal("it does not get quiet")
}
