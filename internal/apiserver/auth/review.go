package auth

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// Reviews answers the kinds that ask who somebody is and what they may do.
type Reviews struct {
	Tokens     *Chain
	Authorizer Authorizer
	Rules      RuleLister
}

// Answer a review of any of the kinds; namespace is that of the request. The
// answer is a new object.
func (r *Reviews) Answer(ctx context.Context, namespace string, review api.Object) (api.Object, error) {
	u := request.UserFrom(ctx)
	switch review := review.(type) {
	case *authenticationv1.TokenReview:
		return r.token(ctx, review)
	case *authenticationv1.SelfSubjectReview:
		out := review.DeepCopy()
		out.CreationTimestamp = metav1.Now()
		out.Status.UserInfo = UserInfo(u)
		return out, nil
	case *authorizationv1.SubjectAccessReview:
		out := review.DeepCopy()
		who := userOf(out.Spec.User, out.Spec.UID, out.Spec.Groups, out.Spec.Extra)
		out.Status = r.access(ctx, who, out.Spec.ResourceAttributes, out.Spec.NonResourceAttributes)
		return out, nil
	case *authorizationv1.LocalSubjectAccessReview:
		out := review.DeepCopy()
		if a := out.Spec.ResourceAttributes; a != nil && a.Namespace != namespace {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("spec.resourceAttributes.namespace must match namespace: %s", namespace))
		}
		who := userOf(out.Spec.User, out.Spec.UID, out.Spec.Groups, out.Spec.Extra)
		out.Status = r.access(ctx, who, out.Spec.ResourceAttributes, out.Spec.NonResourceAttributes)
		return out, nil
	case *authorizationv1.SelfSubjectAccessReview:
		out := review.DeepCopy()
		out.Status = r.access(ctx, u, out.Spec.ResourceAttributes, out.Spec.NonResourceAttributes)
		return out, nil
	case *authorizationv1.SelfSubjectRulesReview:
		out := review.DeepCopy()
		if out.Spec.Namespace == "" {
			return nil, apierrors.NewBadRequest("no namespace on request")
		}
		rules, incomplete, err := r.Rules.RulesFor(ctx, u, out.Spec.Namespace)
		out.Status = rulesStatus(rules)
		out.Status.Incomplete = incomplete
		if err != nil {
			out.Status.EvaluationError = err.Error()
		}
		return out, nil
	}
	return nil, apierrors.NewInternalError(fmt.Errorf("%T is not a review", review))
}

func (r *Reviews) token(ctx context.Context, review *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
	if review.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	out := review.DeepCopy()
	audiences := out.Spec.Audiences
	if len(audiences) == 0 {
		audiences = r.Tokens.Audiences
	}
	out.Status = authenticationv1.TokenReviewStatus{}
	u, auds, err := r.Tokens.Token(ctx, out.Spec.Token, audiences)
	if err != nil {
		out.Status.Error = err.Error()
		return out, nil
	}
	out.Status.Authenticated = true
	out.Status.User = UserInfo(u)
	out.Status.Audiences = auds
	return out, nil
}

func (r *Reviews) access(ctx context.Context, u *request.User, res *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) authorizationv1.SubjectAccessReviewStatus {
	var a Attributes
	var ignored []string
	if res != nil {
		a = Attributes{
			Verb: res.Verb, Namespace: res.Namespace, Group: res.Group, Version: cmp.Or(res.Version, "*"), Resource: res.Resource,
			Subresource: res.Subresource, Name: res.Name, IsResource: true,
		}
		var whole, part bool
		if a.FieldSelector, whole, part = reviewedFields(res.FieldSelector); whole || part {
			ignored = append(ignored, notUsed("fieldSelector", part))
		}
		if a.LabelSelector, whole, part = reviewedLabels(res.LabelSelector); whole || part {
			ignored = append(ignored, notUsed("labelSelector", part))
		}
	} else if path != nil {
		a = Attributes{Verb: path.Verb, Path: path.Path}
	}
	d, why, err := r.Authorizer.Authorize(ctx, u, a)
	if err != nil {
		ignored = slices.Insert(ignored, 0, err.Error())
	}
	return authorizationv1.SubjectAccessReviewStatus{Allowed: d == Allow, Denied: d == Deny, Reason: why, EvaluationError: strings.Join(ignored, "; ")}
}

func rulesStatus(rules []rbacv1.PolicyRule) authorizationv1.SubjectRulesReviewStatus {
	st := authorizationv1.SubjectRulesReviewStatus{
		ResourceRules:    []authorizationv1.ResourceRule{},
		NonResourceRules: []authorizationv1.NonResourceRule{},
	}
	for _, p := range rules {
		if len(p.Resources) > 0 {
			st.ResourceRules = append(st.ResourceRules, authorizationv1.ResourceRule{Verbs: p.Verbs, APIGroups: p.APIGroups, Resources: p.Resources, ResourceNames: p.ResourceNames})
		}
		if len(p.NonResourceURLs) > 0 {
			st.NonResourceRules = append(st.NonResourceRules, authorizationv1.NonResourceRule{Verbs: p.Verbs, NonResourceURLs: p.NonResourceURLs})
		}
	}
	return st
}

// UserInfo is a user in the form of the authentication API.
func UserInfo(u *request.User) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups}
	if len(u.Extra) > 0 {
		info.Extra = map[string]authenticationv1.ExtraValue{}
		for k, v := range u.Extra {
			info.Extra[k] = v
		}
	}
	return info
}

func userOf(name, uid string, groups []string, extra map[string]authorizationv1.ExtraValue) *request.User {
	u := &request.User{Name: name, UID: uid, Groups: groups, Extra: map[string][]string{}}
	for k, v := range extra {
		u.Extra[k] = v
	}
	return u
}
