package etcd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/proa-dev/proa/internal/store"
)

// certificates makes a CA and one certificate for loopback() that serves both sides.
func certificates(t *testing.T) (TLS, *tls.Config) {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.ParseIP(loopback())}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	files := TLS{Cert: filepath.Join(dir, "crt"), Key: filepath.Join(dir, "key"), CA: filepath.Join(dir, "crt")}
	for name, data := range map[string][]byte{files.Cert: certPEM, files.Key: keyPEM} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return files, &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool}
}

// TestGrowth takes the way from one server to three, over TLS, and loses one.
func TestGrowth(t *testing.T) {
	t.Parallel()
	files, _ := certificates(t)
	dir := t.TempDir()
	alone := open(t, Config{Dir: dir})
	if _, err := alone.Commit(t.Context(), store.Write{Key: "/old", Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	_ = alone.Close()

	names := []string{"a", "b", "c"}
	peers := map[string]string{}
	initial := ""
	var servers []*Embedded
	for i, name := range names {
		peers[name] = fmt.Sprintf("https://%s:%d", loopback(), freePort(t))
		if i > 0 {
			if _, err := servers[0].AddMember(t.Context(), peers[name]); err != nil {
				t.Fatal(err)
			}
			initial += ","
		}
		initial += name + "=" + peers[name]
		m := &Member{Name: name, Listen: []string{peers[name]}, Peers: []string{peers[name]}, Initial: initial, Join: i > 0, TLS: files}
		cfg := Config{Dir: filepath.Join(t.TempDir(), name), Member: m}
		if i == 0 {
			cfg.Dir = dir
		}
		servers = append(servers, open(t, cfg))
	}
	if n := len(servers[2].Members()); n != 3 {
		t.Fatalf("%d members", n)
	}
	for i, s := range servers {
		rev, err := s.Commit(t.Context(), store.Write{Key: fmt.Sprint("/new/", i), Value: []byte("1")})
		if err != nil {
			t.Fatal(err)
		}
		for j, other := range servers {
			if now, err := other.Revision(t.Context()); err != nil || now < rev {
				t.Errorf("server %d is at %d after %d was acknowledged by %d: %v", j, now, rev, i, err)
			}
		}
	}
	stream, err := servers[1].Watch(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	_ = servers[0].Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for { // a leader must be found first; not written is not written
		_, err := servers[1].Commit(ctx, store.Write{Key: "/after", Value: []byte("1"), Unsafe: true})
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	for key := ""; key != "/after"; {
		select {
		case b := <-stream.Batches():
			for _, e := range b.Events {
				key = e.Key
			}
		case <-ctx.Done():
			t.Fatal("no event after a server was lost")
		}
	}
}

// TestListen lets clients with a certificate in, and nobody else.
func TestListen(t *testing.T) {
	t.Parallel()
	files, client := certificates(t)
	url := fmt.Sprintf("https://%s:%d", loopback(), freePort(t))
	socket := "unix://" + filepath.Join(t.TempDir(), "etcd.sock")
	s := open(t, Config{Listen: &Listen{URLs: []string{url, socket}, TLS: files}})
	if _, err := s.Commit(t.Context(), store.Write{Key: "/a", Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	for _, ext := range []External{{Endpoints: []string{url}, TLS: client}, {Endpoints: []string{socket}}} {
		remote, err := Dial(t.Context(), ext)
		if err != nil {
			t.Fatal(err)
		}
		if rev, err := remote.Revision(t.Context()); err != nil || rev != 2 {
			t.Error(rev, err)
		}
		// What others write beside our prefix moves the revision; the watch tells.
		stream, err := remote.Watch(t.Context(), 2)
		if err != nil {
			t.Fatal(err)
		}
		_ = stream
		_ = remote.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if remote, err := Dial(ctx, External{Endpoints: []string{url}, TLS: &tls.Config{RootCAs: client.RootCAs}}); err == nil {
		_ = remote.Close()
		t.Error("let in without a certificate")
	}
}

// TestForeignWrites: what others write beside our prefix moves the revision, and
// whoever waits for that revision gets there.
func TestForeignWrites(t *testing.T) {
	url := fmt.Sprintf("http://%s:%d", loopback(), freePort(t))
	open(t, Config{Listen: &Listen{URLs: []string{url}}})
	dial := func(prefix string) *Store {
		s, err := Dial(t.Context(), External{Endpoints: []string{url}, Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	ours, others := dial("/registry"), dial("/registry-of-others")
	stream, err := ours.Watch(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Commit(t.Context(), store.Write{Key: "/a", Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	if b := <-stream.Batches(); len(b.Events) != 1 {
		t.Fatal(b)
	}
	want, err := others.Commit(t.Context(), store.Write{Key: "/b", Value: []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	if rev, err := ours.Revision(t.Context()); err != nil || rev != want {
		t.Fatal(rev, err)
	}
	select {
	case b := <-stream.Batches():
		if b.Revision != want || len(b.Events) != 0 {
			t.Errorf("%+v, want an empty batch of %d", b, want)
		}
	case <-time.After(10 * time.Second):
		t.Error("the watch stays behind the revision")
	}
}

func TestCompactsByItself(t *testing.T) {
	s := open(t, Config{Tick: quick, History: 100 * time.Millisecond})
	rev, err := s.Commit(t.Context(), store.Write{Key: "/a", Value: []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for n := 2; ; n++ {
		if _, err := s.Commit(t.Context(), store.Write{Key: "/a", Value: fmt.Append(nil, n), Unsafe: true}); err != nil {
			t.Fatal(err)
		}
		_, err := s.Range(t.Context(), "/", store.RangeOptions{Revision: rev}, func(store.Entry) bool { return true })
		if err == store.ErrCompacted {
			return
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatal("never compacted", err)
		}
	}
}
