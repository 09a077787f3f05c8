package auth

import (
	"context"
	"crypto"
	"crypto/x509"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/auth/policy"
	"github.com/proa-dev/proa/internal/cache"
)

// Config of everything that says who and whether.
type Config struct {
	Catalog  *api.Catalog
	Of       func(*api.Kind) cache.Reader // the cache of a kind
	ClientCA func() *x509.CertPool        // trusted for client certificates, as of now
	Proxies  []*Proxy                     // that say in headers for whom they ask

	Issuers       []string      // of service-account tokens, URLs that pods can resolve; the first is in new ones
	Audiences     []string      // of this API server; nil = the issuers
	Signer        crypto.Signer // of service-account tokens
	Keys          []any         // further ones whose tokens are believed, private or public
	JWKSURI       string        // "" = of the address that relying parties asked
	MaxExpiration time.Duration // of tokens that are asked for; 0 = any
	Extend        bool          // tokens that kubelets ask for are good for a year
	LastUsed      func(ctx context.Context, secret *corev1.Secret, day string)

	// Before are sorts of tokens that are tried before service accounts', After
	// those that are tried last. They are for this API server, whatever Audiences.
	Before, After []TokenAuthenticator
	NoBootstrap   bool // tokens that nodes join with are not believed
	Anonymous     Anonymous

	Metrics *metrics.Metrics // nil = nobody reads them
}

// Auth is authentication, authorisation and what answers questions about them.
type Auth struct {
	Authenticator   *Chain
	Authorizer      *Switch // Node, then RBAC, until it is set to something else
	Node            *Node
	RBAC            *RBAC
	ServiceAccounts *ServiceAccounts
	Reviews         *Reviews
	Metrics         *metrics.Metrics
}

// New puts the parts together.
func New(c Config) (*Auth, error) {
	keys, err := NewKeys(c.Issuers, c.Signer, c.Keys...)
	if err != nil {
		return nil, err
	}
	keys.JWKSURI = c.JWKSURI
	if len(c.Audiences) == 0 {
		c.Audiences = c.Issuers
	}
	m := metrics.Or(c.Metrics)
	read := func(obj api.Object) cache.Reader {
		k, _ := c.Catalog.Type(obj)
		return c.Of(k)
	}
	pods := cache.Typed[*corev1.Pod]{Reader: read(&corev1.Pod{})}
	secrets := cache.Typed[*corev1.Secret]{Reader: read(&corev1.Secret{})}
	accounts := NewServiceAccounts(ServiceAccounts{
		Keys: keys, Audiences: c.Audiences, Pods: pods, Secrets: secrets,
		Accounts:      cache.Typed[*corev1.ServiceAccount]{Reader: read(&corev1.ServiceAccount{})},
		Nodes:         cache.Typed[*corev1.Node]{Reader: read(&corev1.Node{})},
		MaxExpiration: c.MaxExpiration, Extend: c.Extend, LastUsed: c.LastUsed, Metrics: m,
	})
	chain := &Chain{Proxies: c.Proxies, Certificates: NewCertificates(c.ClientCA), Audiences: c.Audiences, Anonymous: c.Anonymous}
	chain.Certificates.left = m.CertificateExpiration
	for _, t := range c.Before {
		chain.Tokens = append(chain.Tokens, ForAPI{t, c.Audiences})
	}
	chain.Tokens = append(chain.Tokens, accounts)
	if !c.NoBootstrap {
		chain.Tokens = append(chain.Tokens, ForAPI{&BootstrapTokens{Secrets: secrets, Now: time.Now}, c.Audiences})
	}
	chain.Tokens = append(chain.Tokens, c.After...)
	rbac := NewRBAC(read(&rbacv1.Role{}), read(&rbacv1.RoleBinding{}), read(&rbacv1.ClusterRole{}), read(&rbacv1.ClusterRoleBinding{}))
	node := &Node{
		Rules: policy.NodeRules(), Pods: pods,
		Claims:      cache.Typed[*corev1.PersistentVolumeClaim]{Reader: read(&corev1.PersistentVolumeClaim{})},
		Volumes:     cache.Typed[*corev1.PersistentVolume]{Reader: read(&corev1.PersistentVolume{})},
		Attachments: cache.Typed[*storagev1.VolumeAttachment]{Reader: read(&storagev1.VolumeAttachment{})},
		Ingresses:   cache.Typed[*networkingv1.Ingress]{Reader: read(&networkingv1.Ingress{})},
	}
	z := &Switch{}
	z.Set(First{Counted(node, m, "Node", "node"), Counted(rbac, m, "RBAC", "rbac")})
	return &Auth{chain, z, node, rbac, accounts, &Reviews{Tokens: chain, Authorizer: z, Rules: z}, m}, nil
}
