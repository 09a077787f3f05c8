package auth

import (
	"context"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

const (
	shortest = 10 * time.Minute
	longest  = (1 << 32) * time.Second
	// A kubelet asks for 3607 s where a pod's author asked for nothing. Such
	// tokens live a year, because old clients never read them again, and say
	// by warnafter when they should have (KEP-1205).
	kubeletAsks = 3607
	yearLong    = 365 * 24 * time.Hour
)

// Request answers a TokenRequest for a service account (the token subresource).
func (s *ServiceAccounts) Request(ctx context.Context, namespace, name string, tr *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	sa, ok := s.Accounts.Get(namespace, name)
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "serviceaccounts"}, name)
	}
	out := tr.DeepCopy()
	if out.Spec.ExpirationSeconds == nil {
		hour := int64(3600)
		out.Spec.ExpirationSeconds = &hour
	}
	if len(out.Spec.Audiences) == 0 {
		out.Spec.Audiences = s.Audiences
	}
	seconds := *out.Spec.ExpirationSeconds
	if err := checkRequest(sa, out, seconds); err != nil {
		return nil, err
	}
	now := s.Now()
	c := &claims{Kubernetes: &boundTo{Namespace: namespace, ServiceAccount: ref{sa.Name, string(sa.UID)}}}
	if err := s.bind(c.Kubernetes, namespace, out.Spec.BoundObjectRef); err != nil {
		return nil, err
	}
	if most := int64(s.MaxExpiration / time.Second); most > 0 && seconds > most {
		request.Warn(ctx, fmt.Sprintf("requested expiration of %d seconds shortened to %d seconds", seconds, most))
		seconds = most
		out.Spec.ExpirationSeconds = &seconds
	}
	life := time.Duration(seconds) * time.Second
	out.Status = authenticationv1.TokenRequestStatus{ExpirationTimestamp: metav1.NewTime(now.Add(life))}
	if s.Extend && seconds == kubeletAsks && c.Kubernetes.Pod != nil && len(Common(out.Spec.Audiences, s.Audiences)) == len(out.Spec.Audiences) {
		c.Kubernetes.WarnAfter = jwt.NewNumericDate(now.Add(life))
		life = yearLong
	}
	c.RegisteredClaims = jwt.RegisteredClaims{
		Issuer: s.Keys.Issuers[0], Subject: ServiceAccountName(namespace, name), Audience: out.Spec.Audiences, ID: newID(),
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(life)),
	}
	token, err := s.Keys.sign(c)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("failed to generate token: %w", err))
	}
	audit.Annotate(ctx, "authentication.kubernetes.io/issued-credential-id", "JTI="+c.ID)
	out.Name, out.Namespace, out.UID = name, namespace, sa.UID
	out.CreationTimestamp = metav1.NewTime(now)
	out.Status.Token = token
	return out, nil
}

// checkRequest that a request says nothing that its account contradicts.
func checkRequest(sa metav1.Object, tr *authenticationv1.TokenRequest, seconds int64) error {
	meta, at := field.NewPath("metadata"), field.NewPath("spec", "expirationSeconds")
	var bad *field.Error
	name := sa.GetName()
	switch {
	case tr.Name != "" && tr.Name != sa.GetName():
		bad = field.Invalid(meta.Child("name"), tr.Name, "must match the service account name if specified")
	case tr.Namespace != "" && tr.Namespace != sa.GetNamespace():
		bad = field.Invalid(meta.Child("namespace"), tr.Namespace, "must match the service account namespace if specified")
	case tr.UID != "" && tr.UID != sa.GetUID():
		return apierrors.NewConflict(schema.GroupResource{Group: authenticationv1.GroupName, Resource: "TokenRequest"}, sa.GetName(),
			fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", tr.UID, sa.GetUID()))
	case seconds < int64(shortest/time.Second):
		name, bad = "", field.Invalid(at, seconds, "may not specify a duration less than 10 minutes")
	case seconds > int64(longest/time.Second):
		name, bad = "", field.Invalid(at, seconds, "may not specify a duration larger than 2^32 seconds")
	default:
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: authenticationv1.GroupName, Kind: "TokenRequest"}, name, field.ErrorList{bad})
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
