// Package webhooktest gives tests a webhook that a kubeconfig file names, and that
// can hang, fail and talk rubbish.
package webhooktest

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/yaml"
)

// Webhook is an HTTPS server that remembers what it was sent.
type Webhook struct {
	t      testing.TB
	server *httptest.Server

	mu     sync.Mutex
	answer http.HandlerFunc
	got    [][]byte
}

// New webhook, which ends with the test.
func New(t testing.TB) *Webhook {
	w := &Webhook{t: t}
	w.server = httptest.NewTLSServer(w)
	t.Cleanup(func() {
		w.server.CloseClientConnections()
		w.server.Close()
	})
	return w
}

// Answer from now on with a handler; the body was read already.
func (w *Webhook) Answer(h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = h
}

// Say from now on a text, with a code.
func (w *Webhook) Say(code int, text string) {
	w.Answer(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(code)
		io.WriteString(rw, text) //nolint:errcheck // a test
	})
}

// Hang from now on, until what is returned is called.
func (w *Webhook) Hang() (release func()) {
	ch := make(chan struct{})
	w.Answer(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-ch:
		case <-r.Context().Done():
		}
	})
	return sync.OnceFunc(func() { close(ch) })
}

// ServeHTTP implements http.Handler.
func (w *Webhook) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	w.got = append(w.got, body)
	answer := w.answer
	w.mu.Unlock()
	if answer != nil {
		answer(rw, r)
	}
}

// Calls there were.
func (w *Webhook) Calls() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.got)
}

// Bodies that came, decoded as JSON.
func (w *Webhook) Bodies() []map[string]any {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]map[string]any, len(w.got))
	for n, b := range w.got {
		if err := json.Unmarshal(b, &all[n]); err != nil {
			w.t.Fatalf("%v: %s", err, b)
		}
	}
	return all
}

// Kubeconfig is a file that names the webhook, with a path.
func (w *Webhook) Kubeconfig(path string) string {
	w.t.Helper()
	c := clientcmdapi.Config{
		APIVersion: "v1", Kind: "Config", CurrentContext: "c",
		Clusters: []clientcmdapi.NamedCluster{{Name: "hook", Cluster: clientcmdapi.Cluster{
			Server:                   w.server.URL + path,
			CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.server.Certificate().Raw}),
		}}},
		Contexts: []clientcmdapi.NamedContext{{Name: "c", Context: clientcmdapi.Context{Cluster: "hook"}}},
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		w.t.Fatal(err)
	}
	name := filepath.Join(w.t.TempDir(), "kubeconfig")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return name
}
