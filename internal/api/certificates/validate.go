package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/validate"
)

// usages in the order of the message that lists them.
func usages() []certificatesv1.KeyUsage {
	all := []certificatesv1.KeyUsage{
		certificatesv1.UsageSigning, certificatesv1.UsageDigitalSignature, certificatesv1.UsageContentCommitment,
		certificatesv1.UsageKeyEncipherment, certificatesv1.UsageKeyAgreement, certificatesv1.UsageDataEncipherment,
		certificatesv1.UsageCertSign, certificatesv1.UsageCRLSign, certificatesv1.UsageEncipherOnly, certificatesv1.UsageDecipherOnly,
		certificatesv1.UsageAny, certificatesv1.UsageServerAuth, certificatesv1.UsageClientAuth, certificatesv1.UsageCodeSigning,
		certificatesv1.UsageEmailProtection, certificatesv1.UsageSMIME, certificatesv1.UsageIPsecEndSystem, certificatesv1.UsageIPsecTunnel,
		certificatesv1.UsageIPsecUser, certificatesv1.UsageTimestamping, certificatesv1.UsageOCSPSigning, certificatesv1.UsageMicrosoftSGC,
		certificatesv1.UsageNetscapeSGC,
	}
	slices.Sort(all)
	return all
}

func validateRequest(r, old *certificatesv1.CertificateSigningRequest, sub string) field.ErrorList {
	var e validate.Errs
	p, s := validate.Root("spec"), &r.Spec
	if err := checkRequest(s.Request); err != nil {
		e.Invalid(p.Child("request"), s.Request, err.Error())
	}
	if len(s.Usages) == 0 {
		e.Required(p.Child("usages"), "")
	}
	seen, all := map[certificatesv1.KeyUsage]bool{}, usages()
	for i, u := range s.Usages {
		if old != nil { // the spec never changes
			break
		}
		validate.OneOf(&e, p.Child("usages").Index(i), u, all...)
		if seen[u] {
			e.Duplicate(p.Child("usages").Index(i), u)
		}
		seen[u] = true
	}
	signerName(&e, s.SignerName, p.Child("signerName"))
	if n := s.ExpirationSeconds; n != nil && *n < 600 {
		e.Invalid(p.Child("expirationSeconds"), *n, "may not specify a duration less than 600 seconds (10 minutes)")
	}
	at := validate.Root("status")
	checkConditions(&e, r, old == nil || reset.Differ(r.Status.Conditions, old.Status.Conditions), at.Child("conditions"))
	if old == nil || !bytes.Equal(r.Status.Certificate, old.Status.Certificate) {
		if err := checkCertificate(r.Status.Certificate); err != nil {
			e.Invalid(at.Child("certificate"), "<certificate data>", err.Error())
		}
	}
	if old != nil {
		update(&e, r, old, sub, at)
	}
	return e.List()
}

func checkRequest(data []byte) error {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	return request.CheckSignature()
}

func checkCertificate(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	blocks := 0
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		}
		if len(block.Headers) != 0 {
			return errors.New("no PEM block headers are permitted")
		}
		certs, err := x509.ParseCertificates(block.Bytes)
		if err != nil {
			return err
		}
		if len(certs) == 0 {
			return errors.New("found CERTIFICATE PEM block containing 0 certificates")
		}
		blocks, data = blocks+1, rest
	}
	if blocks == 0 {
		return errors.New("must contain at least one CERTIFICATE PEM block")
	}
	return nil
}

// signerName is DOMAIN/PATH: "kubernetes.io/kubelet-serving".
func signerName(e *validate.Errs, name string, p *validate.Path) {
	const maxDomain, maxPath = 253, 253 + 1 + 63
	switch {
	case name == "":
		e.Required(p, "")
		return
	case name == "kubernetes.io/legacy-unknown":
		e.Invalid(p, name, "the legacy signerName is not allowed via this API version")
		return
	}
	domain, path, found := strings.Cut(name, "/")
	if !found || strings.Contains(path, "/") {
		e.Invalid(p, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
		return
	}
	if len(domain) > maxDomain {
		e.TooLong(p, maxDomain)
	}
	labels := strings.Split(domain, ".")
	firstBad(e, labels, domain, validate.Label, p)
	if len(labels) < 2 {
		e.Invalid(p, domain, "should be a domain with at least two segments separated by dots")
	}
	firstBad(e, strings.Split(path, "."), path, validate.Subdomain, p)
	if len(name) > maxDomain+1+maxPath {
		e.TooLong(p, maxDomain+1+maxPath)
	}
}

// firstBad reports the first part that is not good.
func firstBad(e *validate.Errs, parts []string, whole string, check func(string) []string, p *validate.Path) {
	for _, part := range parts {
		if why := check(part); why != nil {
			for _, w := range why {
				e.Invalid(p, whole, fmt.Sprintf("validating label %q: %s", part, w))
			}
			return
		}
	}
}

// checkConditions checks the status of conditions, and their types if they have
// changed.
func checkConditions(e *validate.Errs, r *certificatesv1.CertificateSigningRequest, changed bool, p *validate.Path) {
	seen := map[certificatesv1.RequestConditionType]bool{}
	for i, c := range r.Status.Conditions {
		at := p.Index(i)
		if c.Type == "" && changed {
			e.Required(at.Child("type"), "")
		}
		switch known := c.Type == certificatesv1.CertificateApproved || c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed; {
		case c.Status == "":
			e.Required(at.Child("status"), "")
		case known:
			validate.OneOf(e, at.Child("status"), c.Status, corev1.ConditionTrue)
		default:
			validate.OneOf(e, at.Child("status"), c.Status, corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)
		}
		if !changed {
			continue
		}
		if c.Type == certificatesv1.CertificateApproved && seen[certificatesv1.CertificateDenied] ||
			c.Type == certificatesv1.CertificateDenied && seen[certificatesv1.CertificateApproved] {
			e.Invalid(p, c.Type, "Approved and Denied conditions are mutually exclusive")
		}
		if seen[c.Type] {
			e.Duplicate(at.Child("type"), c.Type)
		}
		seen[c.Type] = true
	}
}

func update(e *validate.Errs, r, old *certificatesv1.CertificateSigningRequest, sub string, p *validate.Path) {
	at := p.Child("conditions")
	for _, t := range []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed} {
		was, now := conditions(old, t), conditions(r, t)
		approves := t != certificatesv1.CertificateFailed && sub != "approval"
		switch {
		case len(now) < len(was):
			e.Forbidden(at, fmt.Sprintf("updates may not remove a condition of type %q", t))
		case approves && len(now) > len(was):
			e.Forbidden(at, fmt.Sprintf("updates may not add a condition of type %q", t))
		case approves && reset.Differ(was, now):
			e.Forbidden(at, fmt.Sprintf("updates may not modify a condition of type %q", t))
		}
	}
	if bytes.Equal(r.Status.Certificate, old.Status.Certificate) {
		return
	}
	if sub != "status" {
		e.Forbidden(p.Child("certificate"), "updates may not set certificate content")
	} else if len(old.Status.Certificate) > 0 {
		e.Forbidden(p.Child("certificate"), "updates may not modify existing certificate content")
	}
}
