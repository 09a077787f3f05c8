package metrics

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Servers counts calls of servers whose certificates are not what they should be:
// without names (SAN), or signed with SHA-1.
type Servers struct {
	// Note takes down for the audit record of a request what is wrong; nil = nobody does.
	Note          func(ctx context.Context, name, value string)
	noNames, sha1 prometheus.Counter
}

func newServers(m *Metrics, prefix string) *Servers {
	const what = "Counts the number of requests to servers "
	return &Servers{
		noNames: m.counter(prefix+"_x509_missing_san_total", what+"missing SAN extension in their serving certificate OR the number of connection failures due to the lack of x509 certificate SAN extension missing (either/or, based on the runtime environment)"),
		sha1:    m.counter(prefix+"_x509_insecure_sha1_total", what+"with insecure SHA1 signatures in their serving certificate OR the number of connection failures due to the insecure SHA1 signatures (either/or, based on the runtime environment)"),
	}
}

// Watch what certificates the servers show that are called by t.
func (s *Servers) Watch(t http.RoundTripper) http.RoundTripper {
	if s == nil {
		return t
	}
	return &watched{t, s}
}

type watched struct {
	http.RoundTripper
	to *Servers
}

// RoundTrip implements http.RoundTripper.
func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := w.RoundTripper.RoundTrip(r)
	switch {
	case err != nil:
		w.to.refused(r, err)
	case answer.TLS != nil:
		w.to.shown(r, answer.TLS.PeerCertificates)
	}
	return answer, err
}

// WrappedRoundTripper is how others find what is below.
func (w *watched) WrappedRoundTripper() http.RoundTripper { return w.RoundTripper }

// refused looks why a server's certificate was.
func (s *Servers) refused(r *http.Request, err error) {
	if _, ok := errors.AsType[x509.HostnameError](err); ok && strings.Contains(err.Error(), "x509: certificate relies on legacy Common Name field") {
		s.withoutNames(r)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		if _, why, ok := strings.Cut(err.Error(), "x509: cannot verify signature: insecure algorithm"); ok && strings.Contains(why, "SHA1") {
			s.withSHA1(r)
		}
	}
}

// shown looks at certificates, that of the server first, that were taken nevertheless.
func (s *Servers) shown(r *http.Request, chain []*x509.Certificate) {
	san := asn1.ObjectIdentifier{2, 5, 29, 17}
	for n, c := range chain {
		if n == 0 && !slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(san) }) {
			s.withoutNames(r)
		}
		old := c.SignatureAlgorithm == x509.SHA1WithRSA || c.SignatureAlgorithm == x509.ECDSAWithSHA1
		if old && !bytes.Equal(c.RawIssuer, c.RawSubject) { // nobody checks what a root has signed itself with
			s.withSHA1(r)
			return
		}
	}
}

func (s *Servers) withoutNames(r *http.Request) {
	s.noNames.Inc()
	s.note(r, "missing-san", "relies on a legacy Common Name field instead of the SAN extension for subject validation")
}

func (s *Servers) withSHA1(r *http.Request) {
	s.sha1.Inc()
	s.note(r, "insecure-sha1", "uses an insecure SHA-1 signature")
}

func (s *Servers) note(r *http.Request, what, why string) {
	if host := r.URL.Hostname(); host != "" && s.Note != nil {
		s.Note(r.Context(), what+".invalid-cert.kubernetes.io/"+host, why)
	}
}
