// Package auth says who makes a request and whether they may: client
// certificates, service-account and bootstrap tokens, impersonation; RBAC, the
// Node authoriser, and the reviews that ask about both.
package auth

import (
	"context"
	"net/http"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// Authenticator finds out who sent a request. It returns nil, nil when it sees
// no credentials that it knows, and an error when there are some that are bad.
type Authenticator interface {
	Authenticate(r *http.Request) (*request.User, error)
}

// Authorizer decides whether a user may do something.
type Authorizer interface {
	Authorize(ctx context.Context, u *request.User, a Attributes) (Decision, string, error)
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
	// selectors of a list, watch or deletecollection, for the Node authoriser
	FieldSelector string
	LabelSelector string
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
	if r != nil && (i.Verb == "list" || i.Verb == "watch" || i.Verb == "deletecollection") {
		q := r.URL.Query()
		a.FieldSelector, a.LabelSelector = q.Get("fieldSelector"), q.Get("labelSelector")
	}
	return a
}

// First asks several authorisers in turn: the first that allows or denies decides.
type First []Authorizer

// Authorize implements Authorizer.
func (f First) Authorize(ctx context.Context, u *request.User, a Attributes) (Decision, string, error) {
	var reason string
	for _, z := range f {
		d, why, err := z.Authorize(ctx, u, a)
		if err != nil || d != NoOpinion {
			return d, why, err
		}
		if why != "" {
			reason = why
		}
	}
	return NoOpinion, reason, nil
}
