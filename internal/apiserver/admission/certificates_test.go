package admission

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// signersOf lets "signer" sign and approve for a whole domain.
type signersOf string

func (d signersOf) Authorize(_ context.Context, u *request.User, a auth.Attributes) (auth.Decision, string, error) {
	if u.Name == "signer" && a.Resource == "signers" && (a.Verb == "sign" || a.Verb == "approve") && a.Name == string(d)+"/*" {
		return auth.Allow, "", nil
	}
	return auth.NoOpinion, "", nil
}

func requestFor(t *testing.T, org string) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "me", Organization: []string{org}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: certificatesv1.CertificateSigningRequestSpec{
		SignerName: certificatesv1.KubeAPIServerClientSignerName, Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
	}}
}

func TestCertificates(t *testing.T) {
	k, _ := kinds.Catalog().Type(&certificatesv1.CertificateSigningRequest{})
	plugin := &Certificates{Authorizer: signersOf("kubernetes.io")}
	user := &request.User{Name: "someone", UID: "u", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}
	served := api.Served{Kind: k}

	r := requestFor(t, "us")
	w := &Write{Operation: Create, Kind: served, Name: "r", Object: r, User: user}
	if err := plugin.Admit(t.Context(), w); err != nil || r.Spec.Username != "someone" || r.Spec.UID != "u" || len(r.Spec.Groups) != 1 || r.Spec.Extra["k"][0] != "v" {
		t.Errorf("%v: %+v", err, r.Spec)
	}
	if err := plugin.Validate(t.Context(), w); err != nil {
		t.Error(err)
	}
	w.Object = requestFor(t, "system:masters")
	if err := plugin.Validate(t.Context(), w); err == nil || !strings.Contains(err.Error(), "system:masters group is not allowed") {
		t.Errorf("a request for everything: %v", err)
	}

	for _, c := range []struct {
		user, sub string
		ok        bool
	}{{"someone", "approval", false}, {"someone", "status", false}, {"signer", "approval", true}, {"signer", "status", true}} {
		now := r.DeepCopy()
		now.Status.Certificate = []byte("x")
		err := plugin.Validate(t.Context(), &Write{Operation: Update, Kind: served, Name: "r", Subresource: c.sub, Old: r, Object: now, User: &request.User{Name: c.user}})
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "user not permitted to") {
			t.Errorf("%s writes %s: %v", c.user, c.sub, err)
		}
	}
}
