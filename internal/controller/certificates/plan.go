package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
)

// How long requests are kept once nothing more will happen to them, and those that
// nobody decides.
const (
	keepDecided = time.Hour
	keepPending = 24 * time.Hour
)

// parse the certificate request in PEM.
func parse(r *certificatesv1.CertificateSigningRequest) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(r.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

func condition(r *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequestCondition {
	for i := range r.Status.Conditions {
		if r.Status.Conditions[i].Type == t {
			return &r.Status.Conditions[i]
		}
	}
	return nil
}

// permitted returns why a signer does not sign a request, nil = it does. The rules
// are those of the built-in signers in the documentation of certificate signing
// requests.
func permitted(signer string, csr *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	switch signer {
	case certificatesv1.KubeAPIServerClientSignerName:
		return clientUsages(usages)
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		return kubeletClient(csr, usages)
	case certificatesv1.KubeletServingSignerName:
		return kubeletServing(csr, usages)
	case legacyUnknown:
		return nil
	}
	return fmt.Errorf("unrecognized signerName: %q", signer)
}

const legacyUnknown = "kubernetes.io/legacy-unknown"

func clientUsages(usages []certificatesv1.KeyUsage) error {
	if !slices.Contains(usages, certificatesv1.UsageClientAuth) {
		return errors.New("usages did not match [client auth]")
	}
	for _, u := range usages {
		if u != certificatesv1.UsageDigitalSignature && u != certificatesv1.UsageKeyEncipherment && u != certificatesv1.UsageClientAuth {
			return fmt.Errorf("usage %q is not one of [key encipherment, digital signature, client auth]", u)
		}
	}
	return nil
}

// node says why a request's subject is not a node's.
func node(csr *x509.CertificateRequest) error {
	if !slices.Equal(csr.Subject.Organization, []string{"system:nodes"}) {
		return errors.New("subject organization is not system:nodes")
	}
	if !strings.HasPrefix(csr.Subject.CommonName, "system:node:") {
		return errors.New("subject common name does not begin with system:node:")
	}
	if len(csr.EmailAddresses) > 0 {
		return errors.New("email subjectAltNames are not allowed")
	}
	if len(csr.URIs) > 0 {
		return errors.New("URI subjectAltNames are not allowed")
	}
	return nil
}

func kubeletClient(csr *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	if err := node(csr); err != nil {
		return err
	}
	if len(csr.DNSNames) > 0 || len(csr.IPAddresses) > 0 {
		return errors.New("DNS and IP subjectAltNames are not allowed")
	}
	return exactly(usages, certificatesv1.UsageClientAuth)
}

func kubeletServing(csr *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	if err := node(csr); err != nil {
		return err
	}
	if len(csr.DNSNames) == 0 && len(csr.IPAddresses) == 0 {
		return errors.New("DNS or IP subjectAltName is required")
	}
	return exactly(usages, certificatesv1.UsageServerAuth)
}

// exactly a digital signature and the purpose, with or without key encipherment.
func exactly(usages []certificatesv1.KeyUsage, purpose certificatesv1.KeyUsage) error {
	want := []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, purpose}
	rest := slices.DeleteFunc(slices.Clone(usages), func(u certificatesv1.KeyUsage) bool { return u == certificatesv1.UsageKeyEncipherment })
	slices.Sort(rest)
	slices.Sort(want)
	if !slices.Equal(rest, want) {
		return fmt.Errorf("usages %v are not [digital signature, %s] with or without key encipherment", usages, purpose)
	}
	return nil
}

// ask is a question to the authoriser whose yes approves a kubelet's request: may
// the requestor create that subresource of certificatesigningrequests?
type ask struct{ subresource, message string }

// asks that apply to a request, in order; none = it is for people to decide.
func asks(r *certificatesv1.CertificateSigningRequest, csr *x509.CertificateRequest) []ask {
	if r.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName || kubeletClient(csr, r.Spec.Usages) != nil {
		return nil
	}
	var all []ask
	if r.Spec.Username == csr.Subject.CommonName {
		all = append(all, ask{"selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."})
	}
	return append(all, ask{"nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."})
}

// expires returns when a request is to be deleted; zero = when its state changes.
func expires(r *certificatesv1.CertificateSigningRequest) time.Time {
	issued := len(r.Status.Certificate) > 0
	var last time.Time // the earliest that counts
	note := func(at time.Time) {
		if last.IsZero() || at.Before(last) {
			last = at
		}
	}
	for _, c := range r.Status.Conditions {
		since := c.LastUpdateTime.Time
		switch c.Type {
		case certificatesv1.CertificateApproved:
			if issued {
				note(since.Add(keepDecided))
			}
		case certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			note(since.Add(keepDecided))
		}
	}
	if issued {
		if block, _ := pem.Decode(r.Status.Certificate); block != nil {
			if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
				note(cert.NotAfter)
			}
		}
	}
	if len(r.Status.Conditions) == 0 {
		note(r.CreationTimestamp.Add(keepPending))
	}
	return last
}

// Life of a certificate that was asked for without one, and the longest.
const life = 365 * 24 * time.Hour

// backdate covers clocks that are a little late.
const backdate = 5 * time.Minute

var keyUsages = map[certificatesv1.KeyUsage]x509.KeyUsage{
	certificatesv1.UsageSigning: x509.KeyUsageDigitalSignature, certificatesv1.UsageDigitalSignature: x509.KeyUsageDigitalSignature,
	certificatesv1.UsageContentCommitment: x509.KeyUsageContentCommitment, certificatesv1.UsageKeyEncipherment: x509.KeyUsageKeyEncipherment,
	certificatesv1.UsageKeyAgreement: x509.KeyUsageKeyAgreement, certificatesv1.UsageDataEncipherment: x509.KeyUsageDataEncipherment,
	certificatesv1.UsageCertSign: x509.KeyUsageCertSign, certificatesv1.UsageCRLSign: x509.KeyUsageCRLSign,
	certificatesv1.UsageEncipherOnly: x509.KeyUsageEncipherOnly, certificatesv1.UsageDecipherOnly: x509.KeyUsageDecipherOnly,
}

var extKeyUsages = map[certificatesv1.KeyUsage]x509.ExtKeyUsage{
	certificatesv1.UsageAny: x509.ExtKeyUsageAny, certificatesv1.UsageServerAuth: x509.ExtKeyUsageServerAuth,
	certificatesv1.UsageClientAuth: x509.ExtKeyUsageClientAuth, certificatesv1.UsageCodeSigning: x509.ExtKeyUsageCodeSigning,
	certificatesv1.UsageEmailProtection: x509.ExtKeyUsageEmailProtection, certificatesv1.UsageSMIME: x509.ExtKeyUsageEmailProtection,
	certificatesv1.UsageIPsecEndSystem: x509.ExtKeyUsageIPSECEndSystem, certificatesv1.UsageIPsecTunnel: x509.ExtKeyUsageIPSECTunnel,
	certificatesv1.UsageIPsecUser: x509.ExtKeyUsageIPSECUser, certificatesv1.UsageTimestamping: x509.ExtKeyUsageTimeStamping,
	certificatesv1.UsageOCSPSigning: x509.ExtKeyUsageOCSPSigning, certificatesv1.UsageMicrosoftSGC: x509.ExtKeyUsageMicrosoftServerGatedCrypto,
	certificatesv1.UsageNetscapeSGC: x509.ExtKeyUsageNetscapeServerGatedCrypto,
}

// says is what the certificate for a request says.
func says(r *certificatesv1.CertificateSigningRequest, csr *x509.CertificateRequest, now time.Time) *x509.Certificate {
	d := life
	if s := r.Spec.ExpirationSeconds; s != nil {
		d = min(d, time.Duration(*s)*time.Second)
	}
	c := &x509.Certificate{
		Subject: csr.Subject, DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses, EmailAddresses: csr.EmailAddresses, URIs: csr.URIs,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(d), BasicConstraintsValid: true,
	}
	for _, u := range r.Spec.Usages {
		c.KeyUsage |= keyUsages[u]
		if x, ok := extKeyUsages[u]; ok && !slices.Contains(c.ExtKeyUsage, x) {
			c.ExtKeyUsage = append(c.ExtKeyUsage, x)
		}
	}
	return c
}
