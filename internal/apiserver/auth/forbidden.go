package auth

import (
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// Forbidden is what a user is told who may not do something; why may be "".
func Forbidden(u *request.User, a Attributes, why string) error {
	var text string
	if !a.IsResource {
		text = fmt.Sprintf("User %q cannot %s path %q", u.Name, a.Verb, a.Path)
	} else {
		resource := a.Resource
		if a.Subresource != "" {
			resource += "/" + a.Subresource
		}
		text = fmt.Sprintf("User %q cannot %s resource %q in API group %q", u.Name, a.Verb, resource, a.Group)
		if a.Namespace != "" {
			text += fmt.Sprintf(" in the namespace %q", a.Namespace)
		} else {
			text += " at the cluster scope"
		}
	}
	text = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text) // no browser may take it for HTML
	if why != "" {
		text += ": " + why
	}
	if !a.IsResource {
		return apierrors.NewForbidden(schema.GroupResource{}, "", errors.New(text))
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.Group, Resource: a.Resource}, a.Name, errors.New(text))
}
