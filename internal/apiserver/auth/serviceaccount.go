package auth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/lru"

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

	parsed *lru.Cache // sha256 of a token whose signature was good → *claims
}

const (
	shortest = 10 * time.Minute
	longest  = (1 << 32) * time.Second
	// A kubelet asks for 3607 s where a pod's author asked for nothing. Such
	// tokens live a year, because old clients never read them again, and say
	// by warnafter when they should have (KEP-1205).
	kubeletAsks = 3607
	yearLong    = 365 * 24 * time.Hour
)

// NewServiceAccounts fills in what is not exported.
func NewServiceAccounts(s ServiceAccounts) *ServiceAccounts {
	s.parsed = lru.New(4096)
	if s.Now == nil {
		s.Now = time.Now
	}
	return &s
}

// Request answers a TokenRequest for a service account (the token subresource).
func (s *ServiceAccounts) Request(_ context.Context, namespace, name string, tr *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	sa, ok := s.Accounts.Get(namespace, name)
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "serviceaccounts"}, name)
	}
	out := tr.DeepCopy()
	seconds := int64(3600)
	if out.Spec.ExpirationSeconds != nil {
		seconds = *out.Spec.ExpirationSeconds
	}
	out.Spec.ExpirationSeconds = &seconds
	if len(out.Spec.Audiences) == 0 {
		out.Spec.Audiences = s.Audiences
	}
	life := time.Duration(seconds) * time.Second
	at := field.NewPath("spec", "expirationSeconds")
	switch {
	case life < shortest:
		return nil, invalidToken(name, field.Invalid(at, seconds, "may not specify a duration less than 10 minutes"))
	case seconds > int64(longest/time.Second):
		return nil, invalidToken(name, field.Invalid(at, seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	now := s.Now()
	c := &claims{Kubernetes: &boundTo{Namespace: namespace, ServiceAccount: ref{sa.Name, string(sa.UID)}}}
	if err := s.bind(c.Kubernetes, namespace, out.Spec.BoundObjectRef); err != nil {
		return nil, err
	}
	out.Status.ExpirationTimestamp = metav1.NewTime(now.Add(life))
	if seconds == kubeletAsks && c.Kubernetes.Pod != nil && slices.Equal(out.Spec.Audiences, s.Audiences) {
		c.Kubernetes.WarnAfter = jwt.NewNumericDate(now.Add(life))
		life = yearLong
	}
	c.RegisteredClaims = jwt.RegisteredClaims{
		Issuer: s.Keys.Issuer, Subject: ServiceAccountName(namespace, name), Audience: out.Spec.Audiences, ID: newID(),
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(life)),
	}
	token, err := s.Keys.sign(c)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("failed to generate token: %w", err))
	}
	out.Name, out.Namespace = name, namespace
	out.CreationTimestamp = metav1.NewTime(now)
	out.Status.Token = token
	return out, nil
}

func (s *ServiceAccounts) bind(b *boundTo, namespace string, to *authenticationv1.BoundObjectReference) error {
	if to == nil {
		return nil
	}
	missing := func(resource string) error {
		return apierrors.NewNotFound(schema.GroupResource{Resource: resource}, to.Name)
	}
	changed := func(resource string, uid any) error {
		return apierrors.NewConflict(schema.GroupResource{Resource: resource}, to.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", to.UID))
	}
	switch {
	case to.Kind == "Pod" && to.APIVersion == "v1":
		pod, ok := s.Pods.Get(namespace, to.Name)
		if !ok {
			return missing("pods")
		}
		if to.UID != "" && to.UID != pod.UID {
			return changed("pods", pod.UID)
		}
		if pod.Spec.ServiceAccountName != b.ServiceAccount.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", b.ServiceAccount.Name))
		}
		b.Pod = &ref{pod.Name, string(pod.UID)}
		if node, ok := s.Nodes.Get("", pod.Spec.NodeName); ok {
			b.Node = &ref{node.Name, string(node.UID)}
		} else if pod.Spec.NodeName != "" {
			b.Node = &ref{Name: pod.Spec.NodeName}
		}
	case to.Kind == "Secret" && to.APIVersion == "v1":
		secret, ok := s.Secrets.Get(namespace, to.Name)
		if !ok {
			return missing("secrets")
		}
		if to.UID != "" && to.UID != secret.UID {
			return changed("secrets", secret.UID)
		}
		b.Secret = &ref{secret.Name, string(secret.UID)}
	case to.Kind == "Node" && to.APIVersion == "v1":
		node, ok := s.Nodes.Get("", to.Name)
		if !ok {
			return missing("nodes")
		}
		if to.UID != "" && to.UID != node.UID {
			return changed("nodes", node.UID)
		}
		b.Node = &ref{node.Name, string(node.UID)}
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to %s %s", to.APIVersion, to.Kind))
	}
	return nil
}

func invalidToken(name string, e *field.Error) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: authenticationv1.GroupName, Kind: "TokenRequest"}, name, field.ErrorList{e})
}

// LegacyToken makes the token that is kept in a Secret of type
// kubernetes.io/service-account-token. It does not end by itself.
func (s *ServiceAccounts) LegacyToken(sa *corev1.ServiceAccount, secret *corev1.Secret) (string, error) {
	return s.Keys.sign(&claims{
		RegisteredClaims: jwt.RegisteredClaims{Issuer: legacyIssuer, Subject: ServiceAccountName(sa.Namespace, sa.Name)},
		LegacySecret:     secret.Name, LegacyNamespace: sa.Namespace, LegacyName: sa.Name, LegacyUID: string(sa.UID),
	})
}

// AuthenticateToken implements TokenAuthenticator.
func (s *ServiceAccounts) AuthenticateToken(token string, audiences []string) (*request.User, []string, error) {
	now := s.Now()
	sum := sha256.Sum256([]byte(token))
	var c *claims
	if known, ok := s.parsed.Get(sum); ok {
		c = known.(*claims)
		if c.ExpiresAt != nil && now.After(c.ExpiresAt.Add(10*time.Second)) {
			return nil, nil, fmt.Errorf("service account token has expired")
		}
	} else {
		var ours bool
		var err error
		if c, ours, err = s.Keys.parse(token, now); !ours || err != nil {
			return nil, nil, err
		}
		s.parsed.Add(sum, c)
	}
	if c.Issuer == legacyIssuer {
		u, err := s.legacy(c, token)
		return u, audiences, err
	}
	if c.Kubernetes == nil {
		return nil, nil, ErrBadToken
	}
	var both []string
	for _, a := range c.Audience {
		if slices.Contains(audiences, a) {
			both = append(both, a)
		}
	}
	if len(both) == 0 {
		return nil, nil, fmt.Errorf("token audiences %q is invalid for the target audiences %q", c.Audience, audiences)
	}
	u, err := s.user(c, now)
	return u, both, err
}

func (s *ServiceAccounts) user(c *claims, now time.Time) (*request.User, error) {
	b := c.Kubernetes
	sa, ok := s.Accounts.Get(b.Namespace, b.ServiceAccount.Name)
	if !ok || string(sa.UID) != b.ServiceAccount.UID {
		return nil, fmt.Errorf("service account %s/%s has been deleted", b.Namespace, b.ServiceAccount.Name)
	}
	u := serviceAccountUser(sa)
	// what is being deleted keeps its tokens for a minute, to finish with
	alive := func(o metav1.Object, want *ref) bool {
		d := o.GetDeletionTimestamp()
		return string(o.GetUID()) == want.UID && (d == nil || now.Before(d.Add(time.Minute)))
	}
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
		u.Extra["authentication.kubernetes.io/credential-id"] = []string{"JTI=" + c.ID}
	}
	return u, nil
}

func (s *ServiceAccounts) legacy(c *claims, token string) (*request.User, error) {
	sa, ok := s.Accounts.Get(c.LegacyNamespace, c.LegacyName)
	if !ok || string(sa.UID) != c.LegacyUID {
		return nil, fmt.Errorf("service account %s/%s has been deleted", c.LegacyNamespace, c.LegacyName)
	}
	secret, ok := s.Secrets.Get(c.LegacyNamespace, c.LegacySecret)
	if !ok || secret.DeletionTimestamp != nil || string(secret.Data[corev1.ServiceAccountTokenKey]) != token {
		return nil, fmt.Errorf("the secret of a token of service account %s/%s has been deleted", c.LegacyNamespace, c.LegacyName)
	}
	return serviceAccountUser(sa), nil
}

func serviceAccountUser(sa *corev1.ServiceAccount) *request.User {
	return &request.User{
		Name:   ServiceAccountName(sa.Namespace, sa.Name),
		UID:    string(sa.UID),
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + sa.Namespace},
		Extra:  map[string][]string{},
	}
}
