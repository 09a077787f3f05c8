package admission

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/api/certificates"
	"github.com/proa-dev/proa/internal/apiserver/auth"
)

// Certificates writes into a certificate request who makes it, and lets only those
// approve or sign it who hold that verb on its signer. Nobody gets a client
// certificate of the group that may do everything.
type Certificates struct {
	Authorizer auth.Authorizer
}

// Name implements Plugin. It stands for CertificateApproval, CertificateSigning
// and CertificateSubjectRestriction.
func (*Certificates) Name() string { return "CertificateSigning" }

// Admit implements Mutator.
func (p *Certificates) Admit(_ context.Context, w *Write) error {
	r, ok := w.Object.(*certificatesv1.CertificateSigningRequest)
	if ok && w.Operation == Create && w.Subresource == "" && w.User != nil {
		certificates.SetRequestor(r, certificates.Who{Name: w.User.Name, UID: w.User.UID, Groups: w.User.Groups, Extra: w.User.Extra})
	}
	return nil
}

// Validate implements Validator.
func (p *Certificates) Validate(ctx context.Context, w *Write) error {
	r, ok := w.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return nil
	}
	switch {
	case w.Operation == Create && w.Subresource == "":
		return restrictSubject(w, r)
	case w.Operation == Update && w.Subresource == "approval":
		return p.hold(ctx, w, "approve")
	case w.Operation == Update && w.Subresource == "status":
		old, _ := w.Old.(*certificatesv1.CertificateSigningRequest)
		if old == nil || slices.Equal(old.Status.Certificate, r.Status.Certificate) && equality.Semantic.DeepEqual(old.Status.Conditions, r.Status.Conditions) {
			return nil
		}
		return p.hold(ctx, w, "sign")
	}
	return nil
}

// hold says whether the user has a verb on the signer of the stored request: by its
// name, or by "DOMAIN/*".
func (p *Certificates) hold(ctx context.Context, w *Write, verb string) error {
	if w.User == nil || p.Authorizer == nil {
		return nil
	}
	old, ok := w.Old.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return nil
	}
	signer := old.Spec.SignerName
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		d, _, err := p.Authorizer.Authorize(ctx, w.User, auth.Attributes{
			Verb: verb, Group: certificatesv1.GroupName, Version: "*", Resource: "signers", Name: name, IsResource: true,
		})
		if err == nil && d == auth.Allow {
			return nil
		}
	}
	return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name, fmt.Errorf("user not permitted to %s requests with signerName %q", verb, signer))
}

func restrictSubject(w *Write, r *certificatesv1.CertificateSigningRequest) error {
	if r.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	block, _ := pem.Decode(r.Spec.Request)
	if block == nil {
		return nil // validation says so
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil
	}
	if slices.Contains(csr.Subject.Organization, "system:masters") {
		return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name,
			fmt.Errorf("use of %s signer with system:masters group is not allowed", certificatesv1.KubeAPIServerClientSignerName))
	}
	return nil
}
