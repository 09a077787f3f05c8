package encrypt

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	api "k8s.io/kms/apis/v2"
)

// plugin is a KMS that "encrypts" by its key's ID and a marked copy.
type plugin struct {
	api.UnimplementedKeyManagementServiceServer
	socket string

	mu                           sync.Mutex
	key                          string
	sick                         bool
	statuses, encrypts, decrypts int
}

func startPlugin(t *testing.T, key string) *plugin {
	t.Helper()
	p := &plugin{socket: filepath.Join(t.TempDir(), "s"), key: key}
	l, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	api.RegisterKeyManagementServiceServer(s, p)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return p
}

func (p *plugin) entry(name string) string {
	return "{kms: {name: " + name + ", apiVersion: v2, timeout: 1s, endpoint: 'unix://" + p.socket + "'}}"
}

func (p *plugin) set(key string, sick bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key, p.sick = key, sick
}

func (p *plugin) Status(context.Context, *api.StatusRequest) (*api.StatusResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.statuses++
	if p.sick {
		return nil, errors.New("no hardware")
	}
	return &api.StatusResponse{Version: "v2", Healthz: "ok", KeyId: p.key}, nil
}

func (p *plugin) Encrypt(_ context.Context, r *api.EncryptRequest) (*api.EncryptResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.encrypts++
	return &api.EncryptResponse{Ciphertext: append([]byte(p.key+"|"), r.Plaintext...), KeyId: p.key, Annotations: map[string][]byte{"kms.example.com": []byte("note")}}, nil
}

func (p *plugin) Decrypt(_ context.Context, r *api.DecryptRequest) (*api.DecryptResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decrypts++
	plain, ok := strings.CutPrefix(string(r.Ciphertext), r.KeyId+"|")
	if !ok || p.sick || string(r.Annotations["kms.example.com"]) != "note" {
		return nil, errors.New("no")
	}
	return &api.DecryptResponse{Plaintext: []byte(plain)}, nil
}

// TestKMS: few calls for many values, a new seed with a new key, and what happens
// when the plugin is away.
func TestKMS(t *testing.T) {
	p := startPlugin(t, "key-1")
	v := open(t, config(t, "secrets: "+p.entry("vault")))
	k := v.now.Load().kms[0]
	now := time.Now()
	k.now = func() time.Time { return now }

	const name = "/secrets/ns/x"
	first := seal(t, v, secrets, name, "one")
	for range 100 {
		wantOpen(t, v, secrets, name, seal(t, v, secrets, name, "one"), "one", false)
	}
	again := open(t, config(t, "secrets: "+p.entry("vault"))) // another server: it has to ask once
	for range 100 {
		wantOpen(t, again, secrets, name, first, "one", false)
	}
	if p.encrypts != 2 || p.decrypts != 1 || p.statuses != 2 {
		t.Errorf("%d encrypt, %d decrypt and %d status calls; want 2, 1, 2", p.encrypts, p.decrypts, p.statuses)
	}

	p.set("key-2", false)
	now = now.Add(askWell)
	if err := v.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantOpen(t, v, secrets, name, first, "one", true)
	second := seal(t, v, secrets, name, "two")
	wantOpen(t, v, secrets, name, second, "two", false)

	p.set("key-2", true)
	now = now.Add(askWell)
	if err := v.Check(t.Context()); err == nil || !strings.Contains(err.Error(), `"vault"`) {
		t.Errorf("got %v, want an error that names the plugin", err)
	}
	wantOpen(t, v, secrets, name, second, "two", false)
	seal(t, v, secrets, name, "three") // for three minutes
	now = now.Add(seedLasts)
	if _, err := v.Seal(t.Context(), secrets, name, []byte("x")); err == nil || !strings.Contains(err.Error(), "/registry"+name) {
		t.Errorf("got %v, want an error that names the key", err)
	}
	wantOpen(t, v, secrets, name, second, "two", false)

	p.set("key-2", false)
	if err := v.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-v.Changed():
	default:
		t.Error("nobody is told that the plugin is well again")
	}
	wantOpen(t, v, secrets, name, seal(t, v, secrets, name, "four"), "four", false)
}

// TestKMSStartsLate: a server starts before its plugin.
func TestKMSStartsLate(t *testing.T) {
	p := startPlugin(t, "key-1")
	stored := seal(t, open(t, config(t, "secrets: "+p.entry("vault"))), secrets, "/secrets/ns/x", "one")
	p.set("key-1", true)
	v := open(t, config(t, "secrets: "+p.entry("vault")))
	k := v.now.Load().kms[0]
	now := time.Now()
	k.now = func() time.Time { return now }
	for range 10 { // one question serves all
		if _, _, err := v.Open(t.Context(), secrets, "/secrets/ns/x", stored); err == nil {
			t.Fatal("decrypted without the plugin")
		}
	}
	if p.decrypts != 1 {
		t.Errorf("the plugin was asked %d times", p.decrypts)
	}
	if _, err := v.Seal(t.Context(), secrets, "/secrets/ns/x", nil); err == nil {
		t.Error("encrypted without the plugin")
	}
	p.set("key-1", false)
	now = now.Add(askUnwell)
	if err := v.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantOpen(t, v, secrets, "/secrets/ns/x", stored, "one", false)
}
