// Package certificates approves the certificate requests of kubelets, signs what
// was approved for the signers of kubernetes.io, and deletes requests that are over.
package certificates

import (
	"context"
	"crypto"
	"crypto/x509"
	"log/slog"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Config of the controller.
type Config struct {
	// May says whether who made a request may create a subresource of
	// certificatesigningrequests ("nodeclient", "selfnodeclient").
	May func(ctx context.Context, r *certificatesv1.CertificateSigningRequest, subresource string) (bool, error)
	// Sign makes a certificate, in PEM, of what it is to say; serial number and issuer
	// are the authority's, which it does not outlive.
	Sign func(says *x509.Certificate, public crypto.PublicKey) ([]byte, error)
}

// Controller of certificate requests.
type Controller struct {
	Config
	queue    *loop.Queue
	in       *client.Informer[*certificatesv1.CertificateSigningRequest]
	requests client.Client[*certificatesv1.CertificateSigningRequest]
	now      func() time.Time
}

// New controller. It reads through the informers and writes through conn, whose
// user has to be allowed to approve and to sign.
func New(in *client.Informers, conn client.Conn, cfg Config, log *slog.Logger) *Controller {
	c := &Controller{
		Config:   cfg,
		queue:    loop.NewQueue("certificates", log),
		in:       client.Shared[*certificatesv1.CertificateSigningRequest](in, client.Scope{}),
		requests: client.For[*certificatesv1.CertificateSigningRequest](conn),
		now:      time.Now,
	}
	c.in.OnChange(func(_, now *certificatesv1.CertificateSigningRequest) {
		if now != nil {
			c.queue.AddObject(now)
		}
	})
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	return c.queue.Run(ctx, 1, c.reconcile, c.in.Synced())
}

func (c *Controller) reconcile(ctx context.Context, name string) (time.Duration, error) {
	r, ok := c.in.Get("", name)
	if !ok || r.DeletionTimestamp != nil {
		return 0, nil
	}
	var again time.Duration
	if at := expires(r); !at.IsZero() {
		if again = at.Sub(c.now()); again <= 0 {
			err := c.requests.Delete(ctx, "", name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(r.UID))})
			if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
				err = nil
			}
			return 0, err
		}
	}
	csr, err := parse(r)
	if err != nil || condition(r, certificatesv1.CertificateDenied) != nil || condition(r, certificatesv1.CertificateFailed) != nil {
		return again, nil
	}
	if condition(r, certificatesv1.CertificateApproved) == nil {
		return again, c.approve(ctx, r, csr)
	}
	if len(r.Status.Certificate) == 0 {
		return again, c.sign(ctx, r, csr)
	}
	return again, nil
}

func (c *Controller) approve(ctx context.Context, r *certificatesv1.CertificateSigningRequest, csr *x509.CertificateRequest) error {
	for _, a := range asks(r, csr) {
		may, err := c.May(ctx, r, a.subresource)
		if err != nil {
			return err
		}
		if !may {
			continue
		}
		out := r.DeepCopy()
		out.Status.Conditions = append(out.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved", Message: a.message,
		})
		_, err = c.requests.Conn().Update(ctx, c.requests.Kind(), out, client.WriteOptions{Subresource: "approval"})
		return err
	}
	return nil
}

func (c *Controller) sign(ctx context.Context, r *certificatesv1.CertificateSigningRequest, csr *x509.CertificateRequest) error {
	switch r.Spec.SignerName {
	case certificatesv1.KubeAPIServerClientSignerName, certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.KubeletServingSignerName, legacyUnknown:
	default:
		return nil // somebody else's
	}
	out := r.DeepCopy()
	if err := permitted(r.Spec.SignerName, csr, r.Spec.Usages); err != nil {
		out.Status.Conditions = append(out.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure", Message: err.Error(), LastUpdateTime: metav1.NewTime(c.now()),
		})
		_, err := c.requests.UpdateStatus(ctx, out)
		return err
	}
	cert, err := c.Sign(says(r, csr, c.now()), csr.PublicKey)
	if err != nil {
		return err
	}
	out.Status.Certificate = cert
	_, err = c.requests.UpdateStatus(ctx, out)
	return err
}
