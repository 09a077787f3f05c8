// Package request says what an HTTP request to the API server asks for and who
// asks: the values that authentication, authorisation, admission, audit and the
// verbs share.
package request

import (
	"context"
	"net/http"
	"strings"
)

// User is who makes a request, as authentication found it.
type User struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
}

// InGroup says whether the user belongs to a group.
func (u *User) InGroup(group string) bool {
	for _, g := range u.Groups {
		if g == group {
			return true
		}
	}
	return false
}

// Names that Kubernetes gives a meaning.
const (
	Anonymous       = "system:anonymous"
	Authenticated   = "system:authenticated"
	Unauthenticated = "system:unauthenticated"
	Masters         = "system:masters"
	Nodes           = "system:nodes"
)

// Info is what a request asks for, read off its method and path.
type Info struct {
	Verb        string // get list watch create update patch delete deletecollection; lower-case method for other paths
	Path        string
	IsResource  bool
	Group       string
	Version     string
	Namespace   string
	Resource    string
	Subresource string
	Name        string
	Parts       []string // of the path, from the resource on
}

// Parse reads a request. List and watch requests for one name by field selector
// (metadata.name=x) carry that name, as RBAC's resourceNames expects.
func Parse(r *http.Request) *Info {
	i := &Info{Path: r.URL.Path, Verb: strings.ToLower(r.Method)}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		i.Version, parts = parts[1], parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		i.Group, i.Version, parts = parts[1], parts[2], parts[3:]
	default:
		return i
	}
	i.IsResource = true
	i.Verb = map[string]string{"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[r.Method]
	if parts[0] == "watch" && len(parts) > 1 { // the old /watch/ prefix
		i.Verb, parts = "watch", parts[1:]
	}
	if parts[0] == "namespaces" && len(parts) > 1 {
		i.Namespace = parts[1]
		// /namespaces/x, /namespaces/x/status and /finalize are about the namespace itself
		if len(parts) > 2 && !(len(parts) == 3 && (parts[2] == "status" || parts[2] == "finalize")) {
			parts = parts[2:]
		}
	}
	i.Parts = parts
	i.Resource = parts[0]
	if len(parts) > 1 {
		i.Name = parts[1]
	}
	if len(parts) > 2 {
		i.Subresource = parts[2]
	}
	i.collection(r)
	return i
}

// collection turns get and delete without a name into their plural verbs.
func (i *Info) collection(r *http.Request) {
	if i.Name == "" {
		switch i.Verb {
		case "get":
			i.Verb = "list"
		case "delete":
			i.Verb = "deletecollection"
		}
	}
	if i.Verb != "list" && i.Verb != "watch" && i.Verb != "deletecollection" {
		return
	}
	q := r.URL.Query()
	if w := q.Get("watch"); i.Verb == "list" && (w == "1" || strings.EqualFold(w, "true") || w == "t") {
		i.Verb = "watch"
	}
	if i.Name == "" {
		for _, term := range strings.Split(q.Get("fieldSelector"), ",") {
			for _, eq := range []string{"metadata.name==", "metadata.name="} {
				if name, ok := strings.CutPrefix(strings.TrimSpace(term), eq); ok && name != "" {
					i.Name = name
					break
				}
			}
		}
	}
}

type key int

const (
	userKey key = iota
	infoKey
	warningsKey
)

// WithUser puts who asks into a context.
func WithUser(ctx context.Context, u *User) context.Context {
	return context.WithValue(ctx, userKey, u)
}

// UserFrom returns who asks, nil if nobody was put there.
func UserFrom(ctx context.Context) *User {
	u, _ := ctx.Value(userKey).(*User)
	return u
}

// WithInfo puts what is asked into a context.
func WithInfo(ctx context.Context, i *Info) context.Context {
	return context.WithValue(ctx, infoKey, i)
}

// InfoFrom returns what is asked, nil if nothing was put there.
func InfoFrom(ctx context.Context) *Info {
	i, _ := ctx.Value(infoKey).(*Info)
	return i
}

// WithWarnings lets what handles the request send warnings to the client.
func WithWarnings(ctx context.Context, add func(text string)) context.Context {
	return context.WithValue(ctx, warningsKey, add)
}

// Warn sends a warning to the client of this request, if it has one.
func Warn(ctx context.Context, text string) {
	if add, ok := ctx.Value(warningsKey).(func(string)); ok {
		add(text)
	}
}
