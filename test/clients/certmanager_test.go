package clients

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/proa-dev/proa/test/clients/proa"
)

const issuers = `
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: self, namespace: default}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: ca, namespace: default}
spec:
  isCA: true
  commonName: the authority
  secretName: ca
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {name: self, kind: Issuer}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: ca, namespace: default}
spec: {ca: {secretName: ca}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: web, namespace: default}
spec:
  secretName: web
  dnsNames: [web.example.com]
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {name: ca, kind: Issuer}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  namespace: default
  annotations: {cert-manager.io/issuer: ca}
spec:
  tls: [{hosts: [shop.example.com], secretName: shop}]
  rules: [{host: shop.example.com}]
`

// TestCertManager runs cert-manager's controller with its definitions: an authority
// signs itself, an issuer uses it, a certificate and one that an Ingress wants are
// signed, all while the server is killed once. What is deleted is issued again.
func TestCertManager(t *testing.T) {
	program := goBuild(t, "./certmanager")
	s := proa.Start(t)
	s.Kubectl("", "apply", "--server-side", "-f", filepath.Join(moduleDir(t, "github.com/cert-manager/cert-manager"), "deploy", "crds"))
	s.Kubectl("", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	s.Kubectl("", "create", "namespace", "cert-manager")
	run(t, program, s.Kubeconfig())
	s.Kubectl(issuers, "apply", "-f", "-")
	api := clientFor(t, s.Config())
	certificates := must(dynamic.NewForConfig(s.Config()))(t).Resource(schema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: "certificates"}).Namespace("default")

	ready(t, certificates, "ca")
	s.Kill()
	s.Up()
	roots := x509.NewCertPool()
	roots.AddCert(certificate(t, api, "ca", "tls.crt"))
	for name, host := range map[string]string{"web": "web.example.com", "shop": "shop.example.com"} {
		ready(t, certificates, name)
		if _, err := certificate(t, api, name, "tls.crt").Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	before := certificate(t, api, "web", "tls.crt").SerialNumber
	check(t, api.CoreV1().Secrets("default").Delete(t.Context(), "web", metav1.DeleteOptions{}))
	proa.Eventually(t, "it is issued again", func(ctx context.Context) error {
		secret, err := api.CoreV1().Secrets("default").Get(ctx, "web", metav1.GetOptions{})
		if err == nil && len(secret.Data["tls.crt"]) == 0 {
			err = errors.New("it is empty")
		}
		return err
	})
	if certificate(t, api, "web", "tls.crt").SerialNumber.Cmp(before) == 0 {
		t.Error("it is the same certificate")
	}
	// owner references of the operator: what it made goes with the Certificate
	check(t, certificates.Delete(t.Context(), "web", metav1.DeleteOptions{}))
	proa.Eventually(t, "the secret and the requests go too", func(ctx context.Context) error {
		left := s.Kubectl("", "get", "secrets,certificaterequests", "-o", "name")
		if strings.Contains(left, "/web") {
			return fmt.Errorf("there are %s", strings.Fields(left))
		}
		return nil
	})
}

// ready waits until a Certificate is.
func ready(t *testing.T, certificates dynamic.ResourceInterface, name string) {
	t.Helper()
	proa.Eventually(t, "certificate "+name+" is ready", func(ctx context.Context) error {
		c, err := certificates.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		conditions, _, _ := unstructured.NestedSlice(c.Object, "status", "conditions")
		if !slices.ContainsFunc(conditions, func(c any) bool {
			m := c.(map[string]any)
			return m["type"] == "Ready" && m["status"] == "True"
		}) {
			return fmt.Errorf("its conditions are %v", conditions)
		}
		return nil
	})
}

func certificate(t *testing.T, api *kubernetes.Clientset, secret, key string) *x509.Certificate {
	t.Helper()
	s := must(api.CoreV1().Secrets("default").Get(t.Context(), secret, metav1.GetOptions{}))(t)
	block, _ := pem.Decode(s.Data[key])
	if block == nil {
		t.Fatalf("there is no certificate in %s", secret)
	}
	return must(x509.ParseCertificate(block.Bytes))(t)
}

// goBuild builds a program of this module, or one that it depends on.
func goBuild(t *testing.T, path string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), filepath.Base(path))
	if out, err := exec.Command("go", "build", "-o", program, path).CombinedOutput(); err != nil {
		t.Fatalf("%s cannot be built: %v\n%s", path, err, out)
	}
	return program
}

// moduleDir is where the source of a module is.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	return strings.TrimSpace(string(must(exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output())(t)))
}

// run a program until the test ends.
func run(t *testing.T, program string, args ...string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "log")
	log := must(os.Create(name))(t)
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if data, _ := os.ReadFile(name); t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(program), data[max(0, len(data)-4000):])
		}
	})
}
