package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver"
	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/auth/setup"
	"github.com/proa-dev/proa/internal/cache"
)

type (
	// AuthOptions say who may come and what they may do.
	AuthOptions = setup.Options
	// AuditOptions say what is written down of it, …
	AuditOptions = audit.Options
	// AuditDelivery … and how it is sent.
	AuditDelivery = audit.Delivery
)

// DefaultAuth is what the flags say when nobody gives them.
func DefaultAuth() AuthOptions { return setup.Defaults() }

// DefaultAudit is what the flags say when nobody gives them.
func DefaultAudit() AuditOptions { return audit.Defaults() }

// frontProxyName is the name in the certificate that the API server shows
// aggregated ones.
const frontProxyName = "front-proxy-client"

// openAuth builds authentication, authorisation and audit.
func (s *server) openAuth(of func(*api.Kind) cache.Reader) error {
	who, what := DefaultAuth(), DefaultAudit()
	if s.Server.Auth != nil {
		who = *s.Server.Auth
	}
	if s.Server.Audit != nil {
		what = *s.Server.Audit
	}
	count, err := s.measure()
	if err != nil {
		return err
	}
	what.Servers = count.Webhooks
	if s.audit, err = what.Open(s.logFor("audit")); err != nil {
		return err
	}
	s.auth, err = setup.Open(who,
		setup.Own{ClientCA: s.certs.ca.PEM, ProxyCA: s.certs.frontProxy.PEM, ProxyNames: []string{frontProxyName}},
		auth.Config{
			Catalog: s.catalog, Of: of, Signer: s.certs.accounts, LastUsed: s.lastUsed,
			Issuers: []string{"https://kubernetes.default.svc." + s.Server.ClusterDomain}, Metrics: count,
		}, s.logFor("auth"))
	return err
}

// measure what authentication and authorisation do. A server is told from others of
// its cluster by the name of its machine, in the form that Kubernetes has for it.
func (s *server) measure() (*metrics.Metrics, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	m := metrics.New(identity(host))
	m.Webhooks.Note, m.Aggregated.Note = audit.Annotate, audit.Annotate
	return m, nil
}

// identity of the API server on a machine: a hash of both names, each after its length.
func identity(host string) string {
	var text []byte
	for _, part := range []string{host, "kube-apiserver"} {
		text = append(binary.BigEndian.AppendUint16(text, uint16(len(part))), part...)
	}
	sum := sha256.Sum256(text)
	return "apiserver-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

// lastUsed writes the day on which the token of a Secret was used to the Secret.
func (s *server) lastUsed(ctx context.Context, secret *corev1.Secret, day string) {
	k, ok := s.catalog.Type(secret)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": secret.UID, "labels": map[string]string{auth.LastUsedLabel: day}}})
	if err == nil {
		_, err = s.self().Patch(ctx, k, secret.Namespace, secret.Name, "", types.MergePatchType, patch, "kube-apiserver", false, false)
	}
	if err != nil {
		s.logFor("auth").Warn("the day on which a service account's token was used could not be written down", "secret", secret.Namespace+"/"+secret.Name, "err", err)
	}
}

// trustConfig is what aggregated API servers read to know whom to believe.
func trustConfig(s *setup.Setup) api.Object {
	list := func(values []string) string {
		text, _ := json.Marshal(values)
		return string(text)
	}
	join := func(usual string, others []string) string {
		return list(append([]string{usual}, slices.DeleteFunc(slices.Clone(others), func(o string) bool { return o == usual })...))
	}
	more := s.Proxies.Options
	names := join(frontProxyName, s.Proxies.Names)
	if more.ClientCAFile != "" && len(s.Proxies.Names) == 0 {
		names = "[]" // any that their authority has signed
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "extension-apiserver-authentication", Namespace: metav1.NamespaceSystem},
		Data: map[string]string{
			"client-ca-file":                     string(s.ClientCA),
			"requestheader-client-ca-file":       string(s.ProxyCA),
			"requestheader-allowed-names":        names,
			"requestheader-username-headers":     join("X-Remote-User", more.UsernameHeaders),
			"requestheader-uid-headers":          join("X-Remote-Uid", more.UIDHeaders),
			"requestheader-group-headers":        join("X-Remote-Group", more.GroupHeaders),
			"requestheader-extra-headers-prefix": join("X-Remote-Extra-", more.ExtraPrefixes),
		},
	}
}

// openID tells relying parties of the keys, if they could find them.
func (s *server) openID() apiserver.OpenID {
	keys := s.auth.ServiceAccounts.Keys
	if !keys.Discoverable() {
		s.Log.Warn(fmt.Sprintf("tokens of service accounts cannot be checked elsewhere: the issuer %q is no https URL (--service-account-issuer)", keys.Issuers[0]))
		return nil
	}
	return keys
}
