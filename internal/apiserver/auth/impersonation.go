package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// impersonation is one that somebody wants.
type impersonation struct {
	ctx    context.Context //nolint:containedctx // lives for one call
	z      Authorizer
	by, to *request.User
	on     Attributes // what the request is about
	count  *metrics.Impersonation
}

// many values are first asked for all together, by the name *.
const many = 4

// as returns whom the request is made as if a mode allows it, or Forbidden.
func (i *impersonation) as(m mode) (*request.User, error) {
	one := Attributes{Verb: "impersonate", Version: "v1", IsResource: true}
	authn := one
	authn.Group = "authentication.k8s.io"
	by := i.by
	if m.name != "" {
		authn.Verb += ":" + m.name
		one = authn
		if m.name == "associated-node" {
			by = i.anyNode()
		}
		on := i.on
		on.Verb = "impersonate-on:" + m.name + ":" + on.Verb
		if err := i.ask(by, on); err != nil {
			return nil, err
		}
	}
	as := *i.to
	if err := i.ask(by, i.name(m, one, &as)); err != nil {
		return nil, err
	}
	if as.UID != "" {
		uid := authn
		uid.Resource, uid.Name = "uids", as.UID
		if err := i.ask(by, uid); err != nil {
			return nil, err
		}
	}
	if err := i.groups(m, one); err != nil {
		return nil, err
	}
	if err := i.extras(m, authn); err != nil {
		return nil, err
	}
	switch {
	case as.Name == request.Anonymous:
		as.Groups = with(as.Groups, request.Unauthenticated)
	case !as.InGroup(request.Unauthenticated):
		as.Groups = with(as.Groups, request.Authenticated)
	}
	return &as, nil
}

// anyNode is the one who asks, without what tells on which node they are: whoever
// may impersonate the node they run on, may so on every node.
func (i *impersonation) anyNode() *request.User {
	by := *i.by
	by.Extra = map[string][]string{"authentication.kubernetes.io/associated-node-keys": slices.Sorted(maps.Keys(i.by.Extra))}
	return &by
}

// name is the check for a user's name, and gives as the groups that follow from it.
func (i *impersonation) name(m mode, a Attributes, as *request.User) Attributes {
	a.Resource, a.Name = "users", as.Name
	if node, ok := nodeNamed(as.Name); ok && m.name != "" {
		a.Resource, a.Name = "nodes", node
		as.Groups = []string{request.Nodes}
		if m.name == "associated-node" {
			a.Name = "*"
		}
	}
	if namespace, name, ok := ServiceAccountOf(as.Name); ok {
		a.Resource, a.Namespace, a.Name = "serviceaccounts", namespace, name
		if len(as.Groups) == 0 {
			as.Groups = ServiceAccountGroups(namespace)
		}
	}
	return a
}

func (i *impersonation) groups(m mode, a Attributes) error {
	a.Resource = "groups"
	if m.name != "" {
		if slices.Contains(i.to.Groups, "") {
			return Forbidden(i.by, a, "impersonating the empty string group is not allowed")
		}
		if i.to.InGroup(request.Masters) {
			a.Name = request.Masters
			return Forbidden(i.by, a, "impersonating the system:masters group is not allowed")
		}
		all := a
		all.Name = "*"
		if len(i.to.Groups) >= many && i.ask(i.by, all) == nil {
			return nil
		}
	}
	for _, a.Name = range i.to.Groups {
		if err := i.ask(i.by, a); err != nil {
			return err
		}
	}
	return nil
}

func (i *impersonation) extras(m mode, a Attributes) error {
	a.Resource = "userextras"
	if m.name != "" {
		count := 0
		for key, values := range i.to.Extra {
			if err := checkExtra(key, values); err != nil {
				return Forbidden(i.by, a, err.Error())
			}
			count += len(values)
		}
		all := a
		all.Subresource, all.Name = "*", "*"
		if count >= many && i.ask(i.by, all) == nil {
			return nil
		}
	}
	for _, key := range slices.Sorted(maps.Keys(i.to.Extra)) {
		a.Subresource = key
		for _, a.Name = range i.to.Extra[key] {
			if err := i.ask(i.by, a); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkExtra(key string, values []string) error {
	switch bad := utilvalidation.IsDomainPrefixedPath(field.NewPath("extra", "key"), key).ToAggregate(); {
	case key == "":
		return errors.New("impersonating the empty string key in extra is not allowed")
	case bad != nil:
		return fmt.Errorf("impersonating an invalid key in extra is not allowed: %w", bad)
	case key != strings.ToLower(key):
		return fmt.Errorf("impersonating a non-lowercase key in extra is not allowed: %q", key)
	case len(values) == 0:
		return errors.New("impersonating empty values in extra is not allowed")
	case slices.Contains(values, ""):
		return errors.New("impersonating the empty string value in extra is not allowed")
	}
	return nil
}

// ask whether the one who impersonates may do something; Forbidden if not.
func (i *impersonation) ask(by *request.User, a Attributes) error {
	start := time.Now()
	d, why, err := i.z.Authorize(i.ctx, by, a)
	i.count.Check(a.Verb, d == Allow, time.Since(start))
	if d == Allow {
		return nil
	}
	switch {
	case err != nil && why != "":
		why = fmt.Sprintf("%v: %s", err, why)
	case err != nil:
		why = err.Error()
	}
	return Forbidden(i.by, a, why)
}

func with(groups []string, group string) []string {
	if slices.Contains(groups, group) {
		return groups
	}
	return append(slices.Clip(groups), group)
}
