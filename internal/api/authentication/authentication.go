// Package authentication describes the reviews of authentication.k8s.io/v1,
// which say who somebody is. They are answered, never stored.
package authentication

import (
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/proa-dev/proa/internal/api"
)

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{{
		GroupVersionKind: authenticationv1.SchemeGroupVersion.WithKind("SelfSubjectReview"),
		Resource:         "selfsubjectreviews",
		Cluster:          true,
		Verbs:            []string{"create"},
		Virtual:          true,
		New:              func() api.Object { return &authenticationv1.SelfSubjectReview{} },
	}, {
		GroupVersionKind: authenticationv1.SchemeGroupVersion.WithKind("TokenReview"),
		Resource:         "tokenreviews",
		Cluster:          true,
		Verbs:            []string{"create"},
		Virtual:          true,
		New:              func() api.Object { return &authenticationv1.TokenReview{} },
	}}
}

// DefaultTokenRequest gives a request for a service account's token its
// defaults: one hour.
func DefaultTokenRequest(r *authenticationv1.TokenRequest) {
	if r.Spec.ExpirationSeconds == nil {
		hour := int64(60 * 60)
		r.Spec.ExpirationSeconds = &hour
	}
}
