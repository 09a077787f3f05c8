package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	authorizationv1beta1 "k8s.io/api/authorization/v1beta1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"

	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/auth/callout"
	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// Access asks a webhook whether a user may do something. It implements
// auth.Authorizer.
type Access struct {
	c    AccessConfig
	seen *cache.LRUExpireCache
	tell *metrics.Webhook
}

// AccessConfig of Access.
type AccessConfig struct {
	Name    string // for the log
	Client  *callout.Client
	Version string // of authorization.k8s.io: v1, v1beta1
	// How long a yes and anything else are remembered; 0 = not at all.
	Allowed, Unallowed time.Duration
	// OnError is decided when the webhook cannot be asked: NoOpinion or Deny.
	OnError auth.Decision
	// Match says which requests the webhook is asked about; nil = all.
	Match *authorizationcel.CELMatcher
	Log   *slog.Logger
	// Metrics nil = nobody reads them.
	Metrics *metrics.Metrics
}

// NewAccess asks through a client.
func NewAccess(c AccessConfig) (*Access, error) {
	if err := known(c.Version); err != nil {
		return nil, err
	}
	return &Access{c, cache.NewLRUExpireCache(remembered), metrics.Or(c.Metrics).Webhook(c.Name)}, nil
}

// Authorize implements auth.Authorizer.
func (x *Access) Authorize(ctx context.Context, u *request.User, a auth.Attributes) (auth.Decision, string, error) {
	sent := &authorizationv1.SubjectAccessReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authorization.k8s.io/" + x.c.Version, Kind: "SubjectAccessReview"},
		Spec:     specOf(u, &a),
	}
	if x.c.Match != nil {
		yes, err := x.c.Match.Eval(ctx, sent)
		if err != nil {
			return x.c.OnError, "", err
		}
		if !yes {
			return auth.NoOpinion, "", nil
		}
	}
	key, err := json.Marshal(&sent.Spec)
	if err != nil {
		return x.c.OnError, "", err
	}
	s, ok := x.remember(string(key))
	if !ok {
		if s, err = x.ask(ctx, sent); err != nil {
			x.c.Log.Error("the authorisation webhook could not be asked", "webhook", x.c.Name, "err", err)
			return x.c.OnError, "", err
		}
		ttl := x.c.Unallowed
		if s.Allowed {
			ttl = x.c.Allowed
		}
		if ttl > 0 && small(&a) {
			x.seen.Add(string(key), s, ttl)
		}
	}
	switch {
	case s.Denied && s.Allowed:
		return auth.Deny, s.Reason, errors.New("webhook subject access review returned both allow and deny response")
	case s.Denied:
		return auth.Deny, s.Reason, nil
	case s.Allowed:
		return auth.Allow, s.Reason, nil
	}
	return auth.NoOpinion, s.Reason, nil
}

func (x *Access) remember(key string) (s authorizationv1.SubjectAccessReviewStatus, ok bool) {
	v, ok := x.seen.Get(key)
	if ok {
		s = v.(authorizationv1.SubjectAccessReviewStatus)
	}
	return s, ok
}

// small requests are remembered: what a client may make as large as it likes
// must not fill the memory.
func small(a *auth.Attributes) bool {
	return len(a.Namespace)+len(a.Verb)+len(a.Group)+len(a.Version)+len(a.Resource)+len(a.Subresource)+len(a.Name)+len(a.Path)+
		len(a.FieldSelector)+len(a.LabelSelector) < 10000
}

type accessReview struct {
	authorizationv1.SubjectAccessReview
}

func (r *accessReview) got() metav1.TypeMeta { return r.TypeMeta }

func (x *Access) ask(ctx context.Context, sent *authorizationv1.SubjectAccessReview) (authorizationv1.SubjectAccessReviewStatus, error) {
	body, err := json.Marshal(inVersion(sent, x.c.Version))
	if err != nil {
		return authorizationv1.SubjectAccessReviewStatus{}, err
	}
	var review accessReview
	var code int
	var took time.Duration
	answer, err := x.c.Client.Post(ctx, body, func(ctx context.Context, now int, err error, lasted time.Duration) {
		if code, took = now, lasted; err != nil {
			x.tell.Asked(ctx, code, err, took)
		}
	})
	if err == nil {
		err = read(answer, sent.TypeMeta, &review)
		x.tell.Asked(ctx, code, err, took) // what cannot be read is no success
	}
	if err != nil && x.c.OnError == auth.NoOpinion && ctx.Err() == nil {
		x.tell.FailedOpen(ctx, code, err)
	}
	return review.Status, err
}

// inVersion is a review in the words of a version: v1beta1 says group for groups.
func inVersion(r *authorizationv1.SubjectAccessReview, version string) any {
	if version == "v1" {
		return r
	}
	old := &authorizationv1beta1.SubjectAccessReview{TypeMeta: r.TypeMeta, Spec: authorizationv1beta1.SubjectAccessReviewSpec{
		ResourceAttributes:    (*authorizationv1beta1.ResourceAttributes)(r.Spec.ResourceAttributes),
		NonResourceAttributes: (*authorizationv1beta1.NonResourceAttributes)(r.Spec.NonResourceAttributes),
		User:                  r.Spec.User, UID: r.Spec.UID, Groups: r.Spec.Groups,
	}}
	if r.Spec.Extra != nil {
		old.Spec.Extra = make(map[string]authorizationv1beta1.ExtraValue, len(r.Spec.Extra))
		for k, v := range r.Spec.Extra {
			old.Spec.Extra[k] = authorizationv1beta1.ExtraValue(v)
		}
	}
	return old
}

// specOf a question.
func specOf(u *request.User, a *auth.Attributes) authorizationv1.SubjectAccessReviewSpec {
	s := authorizationv1.SubjectAccessReviewSpec{User: u.Name, UID: u.UID, Groups: u.Groups}
	if u.Extra != nil {
		s.Extra = make(map[string]authorizationv1.ExtraValue, len(u.Extra))
		for k, v := range u.Extra {
			s.Extra[k] = v
		}
	}
	if !a.IsResource {
		s.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Path: a.Path, Verb: a.Verb}
		return s
	}
	s.ResourceAttributes = &authorizationv1.ResourceAttributes{
		Namespace: a.Namespace, Verb: a.Verb, Group: a.Group, Version: a.Version, Resource: a.Resource, Subresource: a.Subresource, Name: a.Name,
	}
	if f := a.Fields(); len(f) > 0 {
		s.ResourceAttributes.FieldSelector = &authorizationv1.FieldSelectorAttributes{Requirements: f}
	}
	if l := a.Labels(); len(l) > 0 {
		s.ResourceAttributes.LabelSelector = &authorizationv1.LabelSelectorAttributes{Requirements: l}
	}
	return s
}

// RulesFor implements auth.RuleLister: a webhook cannot be asked for all it allows.
func (x *Access) RulesFor(context.Context, *request.User, string) ([]rbacv1.PolicyRule, bool, error) {
	return nil, true, fmt.Errorf("webhook authorizer does not support user rule resolution")
}
