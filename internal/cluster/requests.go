package cluster

import (
	"context"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// mayRequest says whether who made a certificate request may have it approved
// without anybody looking.
func (s *server) mayRequest(ctx context.Context, r *certificatesv1.CertificateSigningRequest, subresource string) (bool, error) {
	u := &request.User{Name: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: map[string][]string{}}
	for k, v := range r.Spec.Extra {
		u.Extra[k] = v
	}
	d, _, err := s.auth.Authorizer.Authorize(ctx, u, auth.Attributes{
		Verb: "create", Group: certificatesv1.GroupName, Version: "*", Resource: "certificatesigningrequests", Subresource: subresource, IsResource: true,
	})
	return d == auth.Allow, err
}
