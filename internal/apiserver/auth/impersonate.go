package auth

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"

	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

const (
	impersonateUser  = "Impersonate-User"
	impersonateGroup = "Impersonate-Group"
	impersonateUID   = "Impersonate-Uid"
	impersonateExtra = "Impersonate-Extra-"
)

// Impersonate returns whom a request is to be made as: u itself if it asks for
// nobody else. The headers are taken out of the request.
//
// There are two ways to be allowed to (KEP-5284). Constrained: one verb for whom
// (impersonate:MODE) and one for what is done in their name
// (impersonate-on:MODE:VERB on what the request is about, a); the mode follows
// from who is asked for. Plain: the verb impersonate for each part of the user
// (user or service account, groups, UID, extras). constraint is the verb of a
// constrained impersonation, "" otherwise.
func Impersonate(ctx context.Context, z Authorizer, u *request.User, a Attributes, h http.Header, count *metrics.Impersonation) (as *request.User, constraint string, err error) {
	to, err := impersonated(h)
	if to == nil || err != nil {
		return u, "", err
	}
	i := &impersonation{ctx: ctx, z: z, by: u, to: to, on: a, count: count}
	start := time.Now()
	defer func() { count.Attempt(constraint, err == nil, time.Since(start)) }()
	for _, m := range modes {
		if !m.fits(i) {
			continue
		}
		as, bad := i.as(m)
		if bad == nil {
			if m.name == "" {
				return as, "", nil
			}
			return as, "impersonate:" + m.name, nil
		}
		if err == nil { // what the strictest way that fits lacks is what the client is told
			err = bad
		}
	}
	return nil, "", err
}

// impersonated is whom the headers of a request ask for, nil for nobody.
func impersonated(h http.Header) (*request.User, error) {
	to := &request.User{Name: h.Get(impersonateUser), Groups: h[impersonateGroup], UID: h.Get(impersonateUID)}
	extras := false
	for name, values := range h {
		if key, ok := strings.CutPrefix(name, impersonateExtra); ok {
			extras = true
			if len(values) > 0 {
				if to.Extra == nil {
					to.Extra = map[string][]string{}
				}
				key = extraKey(key)
				to.Extra[key] = append(to.Extra[key], values...)
			}
		}
	}
	if to.Name == "" {
		if len(to.Groups) > 0 || to.UID != "" || extras {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("requested %+v without impersonating a user name", *to))
		}
		return nil, nil
	}
	for name := range h {
		if name == impersonateUser || name == impersonateGroup || name == impersonateUID || strings.HasPrefix(name, impersonateExtra) {
			delete(h, name)
		}
	}
	return to, nil
}

// mode is a way to impersonate; the one without a name is plain impersonation.
type mode struct {
	name string
	fits func(*impersonation) bool
}

// modes from the strictest to the plain one.
var modes = []mode{
	{"associated-node", func(i *impersonation) bool {
		node, ok := nodeNamed(i.to.Name)
		if _, _, account := ServiceAccountOf(i.by.Name); !ok || !account || !nameAlone(i.to) {
			return false
		}
		return slices.Equal(i.by.Extra["authentication.kubernetes.io/node-name"], []string{node})
	}},
	{"arbitrary-node", func(i *impersonation) bool {
		_, ok := nodeNamed(i.to.Name)
		return ok && nameAlone(i.to)
	}},
	{"serviceaccount", func(i *impersonation) bool {
		_, _, ok := ServiceAccountOf(i.to.Name)
		return ok && nameAlone(i.to)
	}},
	{"user-info", func(i *impersonation) bool {
		_, node := nodeNamed(i.to.Name)
		_, _, account := ServiceAccountOf(i.to.Name)
		return !node && !account
	}},
	{"", func(*impersonation) bool { return true }},
}

// nameAlone says that nothing but a user's name is asked for.
func nameAlone(u *request.User) bool { return u.UID == "" && len(u.Groups) == 0 && len(u.Extra) == 0 }

// nodeNamed reads the user name of a node.
func nodeNamed(user string) (string, bool) {
	name, ok := strings.CutPrefix(user, "system:node:")
	return name, ok && len(apivalidation.NameIsDNSSubdomain(name, false)) == 0
}
