package auth

import (
	"crypto"
	"crypto/x509"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/auth/policy"
	"github.com/proa-dev/proa/internal/cache"
)

// Config of everything that says who and whether.
type Config struct {
	Catalog   *api.Catalog
	Of        func(*api.Kind) cache.Reader // the cache of a kind
	ClientCA  func() *x509.CertPool        // trusted for client certificates, as of now
	Issuer    string                       // of service-account tokens, an URL that pods can resolve
	Audiences []string                     // of this API server; nil = the issuer
	Signers   []crypto.Signer              // service-account keys; the first one signs
}

// Auth is authentication, authorisation and what answers questions about them.
type Auth struct {
	Authenticator   *Chain
	Authorizer      First
	RBAC            *RBAC
	ServiceAccounts *ServiceAccounts
	Reviews         *Reviews
}

// New puts the parts together: certificates, then service-account tokens, then
// bootstrap tokens; the Node authoriser, then RBAC.
func New(c Config) (*Auth, error) {
	keys, err := NewKeys(c.Issuer, c.Signers...)
	if err != nil {
		return nil, err
	}
	if c.Audiences == nil {
		c.Audiences = []string{c.Issuer}
	}
	read := func(obj api.Object) cache.Reader {
		k, _ := c.Catalog.Type(obj)
		return c.Of(k)
	}
	pods := cache.Typed[*corev1.Pod]{Reader: read(&corev1.Pod{})}
	secrets := cache.Typed[*corev1.Secret]{Reader: read(&corev1.Secret{})}
	accounts := NewServiceAccounts(ServiceAccounts{
		Keys: keys, Audiences: c.Audiences, Pods: pods, Secrets: secrets,
		Accounts: cache.Typed[*corev1.ServiceAccount]{Reader: read(&corev1.ServiceAccount{})},
		Nodes:    cache.Typed[*corev1.Node]{Reader: read(&corev1.Node{})},
	})
	chain := &Chain{
		Certificates: NewCertificates(c.ClientCA),
		Tokens:       []TokenAuthenticator{accounts, &BootstrapTokens{Secrets: secrets, Now: time.Now}},
		Audiences:    c.Audiences,
	}
	rbac := NewRBAC(read(&rbacv1.Role{}), read(&rbacv1.RoleBinding{}), read(&rbacv1.ClusterRole{}), read(&rbacv1.ClusterRoleBinding{}))
	node := &Node{
		Rules: policy.NodeRules(), Pods: pods,
		Claims:      cache.Typed[*corev1.PersistentVolumeClaim]{Reader: read(&corev1.PersistentVolumeClaim{})},
		Volumes:     cache.Typed[*corev1.PersistentVolume]{Reader: read(&corev1.PersistentVolume{})},
		Attachments: cache.Typed[*storagev1.VolumeAttachment]{Reader: read(&storagev1.VolumeAttachment{})},
		Ingresses:   cache.Typed[*networkingv1.Ingress]{Reader: read(&networkingv1.Ingress{})},
	}
	z := First{node, rbac}
	return &Auth{chain, z, rbac, accounts, &Reviews{Tokens: chain, Authorizer: z, RBAC: rbac}}, nil
}
