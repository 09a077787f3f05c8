package auth

import (
	"context"
	"crypto/subtle"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
)

// BootstrapTokens authenticates the tokens that new nodes join with: Secrets of
// type bootstrap.kubernetes.io/token in kube-system (KEP "bootstrap tokens").
type BootstrapTokens struct {
	Secrets cache.Typed[*corev1.Secret]
	Now     func() time.Time
}

// BootstrapTokenType is the type of such a Secret.
const BootstrapTokenType corev1.SecretType = "bootstrap.kubernetes.io/token"

var (
	bootstrapToken = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)
	bootstrapGroup = regexp.MustCompile(`^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$`)
)

// AuthenticateToken implements TokenAuthenticator.
func (b *BootstrapTokens) AuthenticateToken(_ context.Context, token string, audiences []string) (*request.User, []string, error) {
	m := bootstrapToken.FindStringSubmatch(token)
	if m == nil {
		return nil, nil, nil
	}
	id, secret := m[1], m[2]
	s, ok := b.Secrets.Get("kube-system", "bootstrap-token-"+id)
	if !ok || s.DeletionTimestamp != nil || s.Type != BootstrapTokenType || string(s.Data["token-id"]) != id ||
		subtle.ConstantTimeCompare(s.Data["token-secret"], []byte(secret)) != 1 ||
		string(s.Data["usage-bootstrap-authentication"]) != "true" || b.expired(s) {
		return nil, nil, nil // it may be of another sort still
	}
	groups := []string{"system:bootstrappers"}
	if extra := string(s.Data["auth-extra-groups"]); extra != "" {
		for _, g := range strings.Split(extra, ",") {
			if !bootstrapGroup.MatchString(g) {
				return nil, nil, nil
			}
			if !slices.Contains(groups, g) {
				groups = append(groups, g)
			}
		}
	}
	slices.Sort(groups)
	return &request.User{Name: "system:bootstrap:" + id, Groups: groups}, audiences, nil
}

// expired is true for an expiration that cannot be read, too.
func (b *BootstrapTokens) expired(s *corev1.Secret) bool {
	text := string(s.Data["expiration"])
	if text == "" {
		return false
	}
	at, err := time.Parse(time.RFC3339, text)
	return err != nil || !b.Now().Before(at)
}
