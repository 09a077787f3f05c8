package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func authority(t *testing.T) (*Authority, string) {
	t.Helper()
	dir := t.TempDir()
	a, err := OpenAuthority(dir, "ca", "proa-ca")
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

var serving = Profile{CommonName: "kube-apiserver", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true}

func TestAuthorityIsKept(t *testing.T) {
	a, dir := authority(t)
	b, err := OpenAuthority(dir, "ca", "another")
	if err != nil {
		t.Fatal(err)
	}
	if a.Hash() != b.Hash() {
		t.Error("a second start made a new authority")
	}
	if s, _ := os.Stat(filepath.Join(dir, "ca.key")); s.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v", s.Mode())
	}
}

func TestLeafIsKeptWhileItFits(t *testing.T) {
	a, dir := authority(t)
	first, err := a.Leaf(filepath.Join(dir, "api"), serving)
	if err != nil {
		t.Fatal(err)
	}
	again, err := a.Leaf(filepath.Join(dir, "api"), serving)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Certificate().Leaf.Equal(first.Certificate().Leaf) {
		t.Error("a good certificate was replaced")
	}
	more := serving
	more.IPs = append(more.IPs, net.IPv4(10, 0, 0, 1))
	wider, err := a.Leaf(filepath.Join(dir, "api"), more)
	if err != nil {
		t.Fatal(err)
	}
	if wider.Certificate().Leaf.Equal(first.Certificate().Leaf) {
		t.Error("a certificate that lacks an address was kept")
	}
	other, _ := authority(t)
	signed, err := other.Leaf(filepath.Join(dir, "api"), serving)
	if err != nil {
		t.Fatal(err)
	}
	if signed.Certificate().Leaf.CheckSignatureFrom(other.Cert) != nil {
		t.Error("the certificate of another authority was kept")
	}
}

func TestRenewal(t *testing.T) {
	c := &x509.Certificate{NotBefore: time.Unix(0, 0), NotAfter: time.Unix(3000, 0)}
	if got := renewal(c); !got.Equal(time.Unix(2000, 0)) {
		t.Errorf("renewed at %v, not after two thirds", got)
	}
}

func TestKubeconfigReachesTheServer(t *testing.T) {
	a, dir := authority(t)
	leaf, err := a.Leaf(filepath.Join(dir, "admin"), Profile{CommonName: "admin", Organization: []string{"system:masters"}, Client: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Kubeconfig("proa", "https://127.0.0.1:6443", a.PEM, leaf)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "admin.kubeconfig")
	if err := WriteKubeconfig(file, c); err != nil {
		t.Fatal(err)
	}
	user := c.AuthInfos["proa"]
	if _, err := tls.X509KeyPair(user.ClientCertificateData, user.ClientKeyData); err != nil {
		t.Error(err)
	}
	if s, _ := os.Stat(file); s.Mode().Perm() != 0o600 {
		t.Errorf("the kubeconfig's mode is %v", s.Mode())
	}
}

func TestToken(t *testing.T) {
	a, dir := authority(t)
	token := NewToken(a)
	same, err := ParseToken(token.String())
	if err != nil || same != token {
		t.Errorf("%v %v", same, err)
	}
	for _, bad := range []string{"", "abc", "abcdef.0123456789abcde", token.String() + "0"} {
		if _, err := ParseToken(bad); err == nil || !strings.Contains(err.Error(), "proa token create") {
			t.Errorf("%q: %v", bad, err)
		}
	}

	leaf, err := a.Leaf(filepath.Join(dir, "api"), serving)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: leaf.Serve})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go http.Serve(l, http.NotFoundHandler())
	url := "https://" + l.Addr().String()

	var found *x509.Certificate
	get := func(token Token) error {
		tr := &http.Transport{TLSClientConfig: token.Trust("127.0.0.1", func(c *x509.Certificate) { found = c })}
		defer tr.CloseIdleConnections()
		req, _ := http.NewRequestWithContext(context.Background(), "GET", url, nil)
		resp, err := (&http.Client{Transport: tr}).Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := get(token); err != nil || !found.Equal(a.Cert) {
		t.Errorf("%v %v", found, err)
	}
	other, _ := authority(t)
	if err := get(NewToken(other)); err == nil {
		t.Error("a server of another cluster was trusted")
	}
}
