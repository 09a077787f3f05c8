package auth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/lru"

	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
)

// ServiceAccounts issues the tokens of service accounts and authenticates them.
// A token is good while the account, and the pod, secret or node it is bound to,
// exist with the UIDs it names.
type ServiceAccounts struct {
	Keys      *Keys
	Audiences []string // what a token is for when nobody says; the API server's own
	Accounts  cache.Typed[*corev1.ServiceAccount]
	Pods      cache.Typed[*corev1.Pod]
	Secrets   cache.Typed[*corev1.Secret]
	Nodes     cache.Typed[*corev1.Node]
	Now       func() time.Time

	MaxExpiration time.Duration // of what may be asked for; 0 = any
	Extend        bool          // tokens that kubelets ask for are good for a year
	// LastUsed writes the day (YYYY-MM-DD) on which the token of a Secret was used
	// to its label LastUsedLabel; nil = nobody wants to know.
	LastUsed func(ctx context.Context, secret *corev1.Secret, day string)
	Metrics  *metrics.Metrics // nil = nobody reads them

	parsed *lru.Cache // sha256 of a token whose signature was good → *claims
}

// NewServiceAccounts fills in what is not exported.
func NewServiceAccounts(s ServiceAccounts) *ServiceAccounts {
	s.parsed = lru.New(4096)
	s.Metrics = metrics.Or(s.Metrics)
	if s.Now == nil {
		s.Now = time.Now
	}
	return &s
}

// AuthenticateToken implements TokenAuthenticator.
func (s *ServiceAccounts) AuthenticateToken(ctx context.Context, token string, audiences []string) (*request.User, []string, error) {
	now, start := s.Now(), time.Now()
	sum := sha256.Sum256([]byte(token))
	var c *claims
	if known, ok := s.parsed.Get(sum); ok {
		s.Metrics.Tokens.Hit(start)
		c = known.(*claims)
		if c.ExpiresAt != nil && now.After(c.ExpiresAt.Add(Leeway)) {
			return nil, nil, fmt.Errorf("service account token has expired")
		}
	} else {
		unverified := s.Keys.issued(token)
		if unverified == nil {
			return nil, nil, nil
		}
		known, fetched := s.Metrics.Tokens.Miss(start), s.Metrics.Tokens.Fetch()
		var err error
		c, err = s.Keys.verify(token, unverified, now)
		fetched(err)
		known()
		if err != nil {
			return nil, nil, err
		}
		s.parsed.Add(sum, c)
	}
	if c.Issuer == legacyIssuer {
		both := Common(s.Audiences, audiences)
		if len(both) == 0 {
			return nil, nil, fmt.Errorf("token audiences %q is invalid for the target audiences %q", s.Audiences, audiences)
		}
		u, err := s.legacy(ctx, c, token)
		return u, both, err
	}
	if c.Kubernetes == nil {
		return nil, nil, ErrBadToken
	}
	both := Common(c.Audience, audiences)
	if len(both) == 0 {
		return nil, nil, fmt.Errorf("token audiences %q is invalid for the target audiences %q", c.Audience, audiences)
	}
	u, err := s.user(ctx, c, now)
	return u, both, err
}

func (s *ServiceAccounts) user(ctx context.Context, c *claims, now time.Time) (*request.User, error) {
	b := c.Kubernetes
	// what is being deleted keeps its tokens for a minute, to finish with
	alive := func(o metav1.Object, want *ref) bool {
		d := o.GetDeletionTimestamp()
		return string(o.GetUID()) == want.UID && (d == nil || now.Before(d.Add(Leeway)))
	}
	sa, ok := s.Accounts.Get(b.Namespace, b.ServiceAccount.Name)
	if !ok || !alive(sa, &b.ServiceAccount) {
		return nil, fmt.Errorf("service account %s/%s has been deleted", b.Namespace, b.ServiceAccount.Name)
	}
	u := serviceAccountUser(sa)
	if b.Secret != nil {
		if o, ok := s.Secrets.Get(b.Namespace, b.Secret.Name); !ok || !alive(o, b.Secret) {
			return nil, fmt.Errorf("secret %s/%s that the service account token is bound to is gone", b.Namespace, b.Secret.Name)
		}
	}
	if b.Pod != nil {
		if o, ok := s.Pods.Get(b.Namespace, b.Pod.Name); !ok || !alive(o, b.Pod) {
			return nil, fmt.Errorf("pod %s/%s that the service account token is bound to is gone", b.Namespace, b.Pod.Name)
		}
		u.Extra["authentication.kubernetes.io/pod-name"] = []string{b.Pod.Name}
		u.Extra["authentication.kubernetes.io/pod-uid"] = []string{b.Pod.UID}
	}
	if b.Node != nil {
		if b.Pod == nil && b.Secret == nil {
			if o, ok := s.Nodes.Get("", b.Node.Name); !ok || !alive(o, b.Node) {
				return nil, fmt.Errorf("node %s that the service account token is bound to is gone", b.Node.Name)
			}
		}
		u.Extra["authentication.kubernetes.io/node-name"] = []string{b.Node.Name}
		if b.Node.UID != "" {
			u.Extra["authentication.kubernetes.io/node-uid"] = []string{b.Node.UID}
		}
	}
	if c.ID != "" {
		u.Extra[credentialID] = []string{"JTI=" + c.ID}
	}
	if b.WarnAfter != nil && now.After(b.WarnAfter.Time) {
		audit.Annotate(ctx, "authentication.k8s.io/stale-token",
			fmt.Sprintf("subject: %s, seconds after warning threshold: %d", c.Subject, int64(now.Sub(b.WarnAfter.Time)/time.Second)))
		s.Metrics.Accounts.Stale.Inc()
	} else if b.WarnAfter != nil {
		s.Metrics.Accounts.Valid.Inc()
	}
	return u, nil
}

func serviceAccountUser(sa *corev1.ServiceAccount) *request.User {
	return &request.User{
		Name:   ServiceAccountName(sa.Namespace, sa.Name),
		UID:    string(sa.UID),
		Groups: append(ServiceAccountGroups(sa.Namespace), request.Authenticated),
		Extra:  map[string][]string{},
	}
}
