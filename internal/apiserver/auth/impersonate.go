package auth

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

const (
	impersonateUser  = "Impersonate-User"
	impersonateGroup = "Impersonate-Group"
	impersonateUID   = "Impersonate-Uid"
	impersonateExtra = "Impersonate-Extra-"
)

// Impersonate returns whom a request is to be made as: u itself if it asks for
// nobody else. Each part (user or service account, groups, uid, extras) has to be
// allowed by the verb impersonate. The headers are taken out of the request.
func Impersonate(z Authorizer, u *request.User, r *http.Request) (*request.User, error) {
	to, err := impersonated(r.Header)
	if to == nil || err != nil {
		return u, err
	}
	for _, a := range impersonations(to) {
		d, why, err := z.Authorize(r.Context(), u, a)
		if err != nil || d != Allow {
			gr := schema.GroupResource{Group: a.Group, Resource: a.Resource}
			text := fmt.Sprintf("User %q cannot impersonate resource %q in API group %q at the cluster scope", u.Name, a.Resource, a.Group)
			if a.Namespace != "" {
				text = fmt.Sprintf("User %q cannot impersonate resource %q in API group %q in the namespace %q", u.Name, a.Resource, a.Group, a.Namespace)
			}
			if why != "" {
				text += ": " + why
			}
			return nil, apierrors.NewForbidden(gr, a.Name, fmt.Errorf("%s", text))
		}
	}
	switch ns, _, isAccount := ServiceAccountOf(to.Name); {
	case isAccount && len(to.Groups) == 0:
		to.Groups = []string{"system:serviceaccounts", "system:serviceaccounts:" + ns, request.Authenticated}
	case to.Name == request.Anonymous:
		if !to.InGroup(request.Unauthenticated) {
			to.Groups = append(to.Groups, request.Unauthenticated)
		}
	case !to.InGroup(request.Authenticated) && !to.InGroup(request.Unauthenticated):
		to.Groups = append(to.Groups, request.Authenticated)
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "Impersonate-") {
			r.Header.Del(name)
		}
	}
	return to, nil
}

func impersonated(h http.Header) (*request.User, error) {
	to := &request.User{Name: h.Get(impersonateUser), Groups: h[impersonateGroup], UID: h.Get(impersonateUID), Extra: map[string][]string{}}
	for name, values := range h {
		if len(name) > len(impersonateExtra) && strings.EqualFold(name[:len(impersonateExtra)], impersonateExtra) {
			key := strings.ToLower(name[len(impersonateExtra):])
			if plain, err := url.PathUnescape(key); err == nil {
				key = plain
			}
			to.Extra[key] = values
		}
	}
	if to.Name == "" {
		if len(to.Groups) > 0 || to.UID != "" || len(to.Extra) > 0 {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("requested %v without impersonating a user", to))
		}
		return nil, nil
	}
	return to, nil
}

func impersonations(to *request.User) []Attributes {
	one := func(group, resource, sub, namespace, name string) Attributes {
		return Attributes{Verb: "impersonate", Group: group, Version: "v1", Resource: resource, Subresource: sub, Namespace: namespace, Name: name, IsResource: true}
	}
	var all []Attributes
	if ns, name, ok := ServiceAccountOf(to.Name); ok {
		all = append(all, one("", "serviceaccounts", "", ns, name))
	} else {
		all = append(all, one("", "users", "", "", to.Name))
	}
	for _, g := range to.Groups {
		all = append(all, one("", "groups", "", "", g))
	}
	if to.UID != "" {
		all = append(all, one("authentication.k8s.io", "uids", "", "", to.UID))
	}
	for key, values := range to.Extra {
		for _, v := range values {
			all = append(all, one("authentication.k8s.io", "userextras", key, "", v))
		}
	}
	return all
}
