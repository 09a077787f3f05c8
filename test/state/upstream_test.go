package state

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// upstream is the path of one of upstream's programs.
func upstream(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("PROA_UPSTREAM_BIN")
	if dir == "" {
		t.Skip("PROA_UPSTREAM_BIN names no folder with upstream's programs")
	}
	file := filepath.Join(dir, name)
	if _, err := os.Stat(file); err != nil {
		t.Skip("upstream's program is missing: ", err)
	}
	return file
}

// etcdServer is upstream's etcd as a process of its own.
type etcdServer struct {
	*process
	url  string
	args []string
}

func startEtcd(t testing.TB, dir string, flags ...string) *etcdServer {
	t.Helper()
	e := &etcdServer{url: fmt.Sprintf("http://%s", net.JoinHostPort(loopback(), strconv.Itoa(freePort(t))))}
	e.args = append([]string{
		"--data-dir", dir, "--listen-client-urls", e.url, "--advertise-client-urls", e.url,
		"--listen-peer-urls", fmt.Sprintf("http://%s", net.JoinHostPort(loopback(), strconv.Itoa(freePort(t)))), "--log-level", "warn",
	}, flags...)
	e.begin(t)
	e.answers(t)
	return e
}

func (e *etcdServer) begin(t testing.TB) {
	t.Helper()
	e.process = start(t, filepath.Join(t.TempDir(), "etcd.log"), nil, upstream(t, "etcd"), e.args...)
}

// client of it, for what no API shows.
func (e *etcdServer) client(t testing.TB) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.url}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (e *etcdServer) answers(t testing.TB) {
	t.Helper()
	c := e.client(t)
	eventually(t, 30*time.Second, "etcd answers", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Get(ctx, "x")
		return err
	})
}

// raw value of a key.
func (e *etcdServer) raw(t testing.TB, key string) string {
	t.Helper()
	r, err := e.client(t).Get(t.Context(), key)
	if err != nil || len(r.Kvs) != 1 {
		t.Fatalf("%s: %v, %v", key, r, err)
	}
	return string(r.Kvs[0].Value)
}

// save a snapshot as etcdctl does.
func (e *etcdServer) save(t testing.TB, file string) {
	t.Helper()
	r, err := e.client(t).Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		t.Fatal(err)
	}
}

// accountKey makes a key for service accounts' tokens.
func accountKey(t testing.TB) string {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "sa.key")
	data := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)})
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const (
	issuer   = "https://kubernetes.default.svc.cluster.local"
	services = "10.97.0.0/16"
	ownerTok = "owner-token"
)

// ownerToken is a token file with one owner of the cluster in it.
func ownerToken(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens.csv")
	if err := os.WriteFile(file, []byte(ownerTok+`,owner,1,"system:masters"`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// kubeAPIServer is upstream's.
type kubeAPIServer struct {
	*process
	conf *rest.Config
	api  *kubernetes.Clientset
}

func startKubeAPIServer(t testing.TB, etcd, accounts string, flags ...string) *kubeAPIServer {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	args := append([]string{
		"--etcd-servers", etcd, "--bind-address", loopback(), "--advertise-address", loopback(), "--secure-port", fmt.Sprint(port),
		"--cert-dir", dir, "--token-auth-file", ownerToken(t), "--authorization-mode", "Node,RBAC",
		"--service-account-issuer", issuer, "--service-account-key-file", accounts, "--service-account-signing-key-file", accounts,
		"--service-cluster-ip-range", services, "--endpoint-reconciler-type", "none",
	}, flags...)
	k := &kubeAPIServer{process: start(t, filepath.Join(dir, "log"), nil, upstream(t, "kube-apiserver"), args...)}
	k.conf = &rest.Config{
		Host: "https://" + net.JoinHostPort(loopback(), strconv.Itoa(port)), BearerToken: ownerTok, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{Insecure: true}, Timeout: 30 * time.Second,
	}
	var err error
	if k.api, err = kubernetes.NewForConfig(k.conf); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*time.Minute, "upstream's kube-apiserver is ready", func() error {
		select {
		case <-k.ended:
			t.Fatalf("it ended: %v\n%s", k.err, k.tail())
		default:
		}
		_, err := k.api.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(t.Context())
		return err
	})
	return k
}

func (k *kubeAPIServer) startControllers(t testing.TB, accounts string) *process {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
clusters: [{name: c, cluster: {server: %q, insecure-skip-tls-verify: true}}], users: [{name: u, user: {token: %s}}]}`, k.conf.Host, ownerTok)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, filepath.Join(dir, "log"), nil, upstream(t, "kube-controller-manager"),
		"--kubeconfig", config, "--service-account-private-key-file", accounts, "--secure-port", "0", "--leader-elect=false", "--use-service-account-credentials=true")
}
