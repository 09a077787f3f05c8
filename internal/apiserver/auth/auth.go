// Package auth says who makes a request and whether they may: client
// certificates, authenticating proxies, service-account and bootstrap tokens,
// tokens of a file, impersonation; RBAC, the Node authoriser, ABAC, and the
// reviews that ask about both. Below it: oidc (tokens of other issuers), remote
// (webhooks that are asked), setup (all of it, from flags and files).
package auth

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// Authenticator finds out who sent a request. It returns nil, nil when it sees
// no credentials that it knows and lets nobody in without, and an error when
// there are some that are bad. What it has to say beside that goes to ctx:
// warnings, and annotations of the audit record.
type Authenticator interface {
	Authenticate(ctx context.Context, r *http.Request) (*request.User, error)
}

// Authorizer decides whether a user may do something. A decision counts, even
// with an error; NoOpinion with an error is a refusal that nobody meant.
type Authorizer interface {
	Authorize(ctx context.Context, u *request.User, a Attributes) (Decision, string, error)
}

// RuleLister is an Authorizer that can list what a user may do in a namespace.
// incomplete says that there may be more.
type RuleLister interface {
	RulesFor(ctx context.Context, u *request.User, namespace string) (rules []rbacv1.PolicyRule, incomplete bool, err error)
}

// Attributes are what a decision is about: a resource, or a path.
type Attributes struct {
	Verb        string
	Namespace   string
	Group       string
	Version     string
	Resource    string
	Subresource string
	Name        string
	Path        string // IsResource false
	IsResource  bool
	// selectors of a list, watch or deletecollection, as text
	FieldSelector string
	LabelSelector string
}

// ReadOnly says that what is asked for changes nothing.
func (a *Attributes) ReadOnly() bool {
	return a.Verb == "get" || a.Verb == "list" || a.Verb == "watch"
}

// Decision of an Authorizer; the zero value denies nothing and allows nothing.
type Decision int

const (
	NoOpinion Decision = iota
	Allow
	Deny
)

// AttributesOf a request.
func AttributesOf(i *request.Info, r *http.Request) Attributes {
	a := Attributes{
		Verb: i.Verb, Namespace: i.Namespace, Group: i.Group, Version: i.Version,
		Resource: i.Resource, Subresource: i.Subresource, Name: i.Name, Path: i.Path, IsResource: i.IsResource,
	}
	if r != nil && r.URL.RawQuery != "" && (i.Verb == "list" || i.Verb == "watch" || i.Verb == "deletecollection") {
		q := r.URL.Query()
		a.FieldSelector, a.LabelSelector = q.Get("fieldSelector"), q.Get("labelSelector")
	}
	return a
}

// First asks several authorisers in turn: the first that allows or denies
// decides. If none does, the reasons and errors of all are given.
type First []Authorizer

// Authorize implements Authorizer.
func (f First) Authorize(ctx context.Context, u *request.User, a Attributes) (Decision, string, error) {
	var reasons []string
	var failed []error
	for _, z := range f {
		d, why, err := z.Authorize(ctx, u, a)
		if d != NoOpinion {
			return d, why, err
		}
		if why != "" {
			reasons = append(reasons, why)
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return NoOpinion, strings.Join(reasons, "\n"), utilerrors.NewAggregate(failed)
}

// RulesFor implements RuleLister: the rules of all.
func (f First) RulesFor(ctx context.Context, u *request.User, namespace string) (all []rbacv1.PolicyRule, incomplete bool, err error) {
	var failed []error
	for _, z := range f {
		l, ok := z.(RuleLister)
		if !ok {
			continue
		}
		rules, part, err := l.RulesFor(ctx, u, namespace)
		all, incomplete = append(all, rules...), incomplete || part
		if err != nil {
			failed = append(failed, err)
		}
	}
	return all, incomplete, utilerrors.NewAggregate(failed)
}

// Switch is a list of authorisers that can be exchanged while requests are
// served. The members of system:masters may do everything whatever it says.
type Switch struct{ now atomic.Pointer[First] }

// Set exchanges the authorisers.
func (s *Switch) Set(f First) {
	all := slices.Concat(First{masters{}}, f)
	s.now.Store(&all)
}

var errNoAuthorizer = errors.New("no authorizer is set")

// Authorize implements Authorizer.
func (s *Switch) Authorize(ctx context.Context, u *request.User, a Attributes) (Decision, string, error) {
	if f := s.now.Load(); f != nil {
		return f.Authorize(ctx, u, a)
	}
	return NoOpinion, "", errNoAuthorizer
}

// RulesFor implements RuleLister.
func (s *Switch) RulesFor(ctx context.Context, u *request.User, namespace string) ([]rbacv1.PolicyRule, bool, error) {
	if f := s.now.Load(); f != nil {
		return f.RulesFor(ctx, u, namespace)
	}
	return nil, true, errNoAuthorizer
}

// masters may do everything, so that a mistake in what authorises the others can
// be mended.
type masters struct{}

func (masters) Authorize(_ context.Context, u *request.User, _ Attributes) (Decision, string, error) {
	if u.InGroup(request.Masters) {
		return Allow, "", nil
	}
	return NoOpinion, "", nil
}

// Always is an authoriser that decides the same about everything.
type Always Decision

// Authorize implements Authorizer.
func (d Always) Authorize(context.Context, *request.User, Attributes) (Decision, string, error) {
	if Decision(d) == Allow {
		return Allow, "", nil
	}
	return NoOpinion, "Everything is forbidden.", nil
}

// RulesFor implements RuleLister.
func (d Always) RulesFor(context.Context, *request.User, string) ([]rbacv1.PolicyRule, bool, error) {
	if Decision(d) == Allow {
		return everything(), false, nil
	}
	return nil, false, nil
}

func everything() []rbacv1.PolicyRule {
	all := []string{"*"}
	return []rbacv1.PolicyRule{{Verbs: all, APIGroups: all, Resources: all}, {Verbs: all, NonResourceURLs: all}}
}
