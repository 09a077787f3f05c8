package certificates

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/test/controllertest"
)

func key(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func asked(t *testing.T, name, org string, ips ...net.IP) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: name, Organization: []string{org}}, IPAddresses: ips,
	}, key(t))
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestPermitted(t *testing.T) {
	const sig, enc, client, server = certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageClientAuth, certificatesv1.UsageServerAuth
	usages := func(u ...certificatesv1.KeyUsage) []certificatesv1.KeyUsage { return u }
	here := net.IPv4(10, 0, 0, 1)
	for what, c := range map[string]struct {
		signer  string
		request []byte
		usages  []certificatesv1.KeyUsage
		why     string
	}{
		"a client":                     {certificatesv1.KubeAPIServerClientSignerName, asked(t, "me", "us"), usages(sig, enc, client), ""},
		"a client that would serve":    {certificatesv1.KubeAPIServerClientSignerName, asked(t, "me", "us"), usages(client, server), "server auth"},
		"a client of no use":           {certificatesv1.KubeAPIServerClientSignerName, asked(t, "me", "us"), usages(sig), "client auth"},
		"a kubelet":                    {certificatesv1.KubeAPIServerClientKubeletSignerName, asked(t, "system:node:a", "system:nodes"), usages(client, sig), ""},
		"a kubelet, RSA":               {certificatesv1.KubeAPIServerClientKubeletSignerName, asked(t, "system:node:a", "system:nodes"), usages(client, sig, enc), ""},
		"not a node":                   {certificatesv1.KubeAPIServerClientKubeletSignerName, asked(t, "me", "system:nodes"), usages(client, sig), "common name"},
		"not of the nodes":             {certificatesv1.KubeAPIServerClientKubeletSignerName, asked(t, "system:node:a", "system:masters"), usages(client, sig), "organization"},
		"a kubelet with an address":    {certificatesv1.KubeAPIServerClientKubeletSignerName, asked(t, "system:node:a", "system:nodes", here), usages(client, sig), "not allowed"},
		"a kubelet that serves":        {certificatesv1.KubeletServingSignerName, asked(t, "system:node:a", "system:nodes", here), usages(server, sig), ""},
		"one that serves nowhere":      {certificatesv1.KubeletServingSignerName, asked(t, "system:node:a", "system:nodes"), usages(server, sig), "required"},
		"one that serves as a client":  {certificatesv1.KubeletServingSignerName, asked(t, "system:node:a", "system:nodes", here), usages(client, sig), "usages"},
		"a signer that nobody knows":   {"kubernetes.io/other", asked(t, "me", "us"), usages(client), "unrecognized"},
		"what old clusters used to do": {legacyUnknown, asked(t, "me", "us"), usages(server), ""},
	} {
		csr, err := parse(&certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{Request: c.request}})
		if err != nil {
			t.Fatal(err)
		}
		err = permitted(c.signer, csr, c.usages)
		if (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, want %q", what, err, c.why)
		}
	}
}

func TestExpires(t *testing.T) {
	made := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	request := func(issued bool, types ...certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequest {
		r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(made)}}
		for _, c := range types {
			r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: c, LastUpdateTime: metav1.NewTime(made)})
		}
		if issued {
			r.Status.Certificate = []byte("not read")
		}
		return r
	}
	for what, c := range map[string]struct {
		r    *certificatesv1.CertificateSigningRequest
		want time.Duration // 0 = never
	}{
		"pending":             {request(false), keepPending},
		"approved":            {request(false, certificatesv1.CertificateApproved), 0},
		"approved and issued": {request(true, certificatesv1.CertificateApproved), keepDecided},
		"denied":              {request(false, certificatesv1.CertificateDenied), keepDecided},
		"failed":              {request(false, certificatesv1.CertificateApproved, certificatesv1.CertificateFailed), keepDecided},
	} {
		at := expires(c.r)
		if c.want == 0 && !at.IsZero() || c.want > 0 && !at.Equal(made.Add(c.want)) {
			t.Errorf("%s: %v", what, at)
		}
	}
}

func TestApprovesAndSigns(t *testing.T) {
	ca := key(t)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{CommonName: "ca"}}
	c := controllertest.New(t, 20)
	c.Run(New(c.Informers, c.Shaky, Config{
		May: func(_ context.Context, r *certificatesv1.CertificateSigningRequest, sub string) (bool, error) {
			return sub == "nodeclient", nil
		},
		Sign: func(says *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
			says.SerialNumber = big.NewInt(2)
			der, err := x509.CreateCertificate(rand.Reader, says, root, public, ca)
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
		},
	}, controllertest.Log()))
	create := func(name, signer string, request []byte, usages ...certificatesv1.KeyUsage) {
		controllertest.Create(c, &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: request, SignerName: signer, Usages: usages, ExpirationSeconds: ptr.To[int32](1200),
		}})
	}
	status := func(name string) certificatesv1.CertificateSigningRequestStatus {
		return controllertest.Get[*certificatesv1.CertificateSigningRequest](c, "", name).Status
	}
	sig, client := certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth
	create("kubelet", certificatesv1.KubeAPIServerClientKubeletSignerName, asked(t, "system:node:a", "system:nodes"), sig, client)
	c.Until("the kubelet has its certificate", func() bool { return len(status("kubelet").Certificate) > 0 })
	block, _ := pem.Decode(status("kubelet").Certificate)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || cert.Subject.CommonName != "system:node:a" || time.Until(cert.NotAfter) > 1200*time.Second || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("%v %+v", err, cert)
	}

	create("person", certificatesv1.KubeAPIServerClientSignerName, asked(t, "me", "us"), client)
	create("wrong", certificatesv1.KubeletServingSignerName, asked(t, "me", "us"), client)
	approve := func(name string) {
		controllertest.Change(c, "", name, "approval", func(r *certificatesv1.CertificateSigningRequest) {
			r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "ByHand"})
		})
	}
	approve("wrong")
	c.Until("what the signer does not sign has failed", func() bool {
		s := status("wrong")
		return len(s.Conditions) == 2 && s.Conditions[1].Type == certificatesv1.CertificateFailed
	})
	if s := status("person"); len(s.Conditions) > 0 {
		t.Errorf("nobody approved it: %+v", s.Conditions)
	}
	approve("person")
	c.Until("the person has a certificate", func() bool { return len(status("person").Certificate) > 0 })
}
