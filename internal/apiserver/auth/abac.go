package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// ABAC allows what the lines of a file allow (abac.authorization.kubernetes.io).
type ABAC []abacPolicy

// abacPolicy is one line.
type abacPolicy struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Spec       abacSpec `json:"spec"`
}

// abacSpec says who may do what; "*" stands for everything.
type abacSpec struct {
	User            string `json:"user"`
	Group           string `json:"group"`
	Readonly        bool   `json:"readonly"`
	APIGroup        string `json:"apiGroup"`
	Resource        string `json:"resource"`
	Namespace       string `json:"namespace"`
	NonResourcePath string `json:"nonResourcePath"`
}

// ReadABAC of a file: one JSON object on a line; empty lines and those that begin
// with # are passed over. An error names the line.
func ReadABAC(file string) (ABAC, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	all := ABAC{}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		var p abacPolicy
		if err := json.Unmarshal(line, &p); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		}
		if p.Kind != "Policy" || p.APIVersion != "abac.authorization.kubernetes.io/v1beta1" {
			return nil, fmt.Errorf(`%s:%d: apiVersion %q and kind %q are no policy: write {"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{…}}`, file, n, p.APIVersion, p.Kind)
		}
		all = append(all, p)
	}
	return all, nil
}

// Authorize implements Authorizer.
func (b ABAC) Authorize(_ context.Context, u *request.User, a Attributes) (Decision, string, error) {
	for i := range b {
		if s := &b[i].Spec; s.about(u) && (a.ReadOnly() || !s.Readonly) && s.covers(&a) {
			return Allow, "", nil
		}
	}
	return NoOpinion, "No policy matched.", nil
}

// RulesFor implements RuleLister.
func (b ABAC) RulesFor(_ context.Context, u *request.User, namespace string) ([]rbacv1.PolicyRule, bool, error) {
	var all []rbacv1.PolicyRule
	for i := range b {
		s := &b[i].Spec
		if !s.about(u) || s.Namespace != "*" && s.Namespace != namespace {
			continue
		}
		verbs := []string{"*"}
		if s.Readonly {
			verbs = []string{"get", "list", "watch"}
		}
		if s.Resource != "" {
			all = append(all, rbacv1.PolicyRule{Verbs: verbs, APIGroups: []string{s.APIGroup}, Resources: []string{s.Resource}})
		}
		if s.NonResourcePath != "" {
			all = append(all, rbacv1.PolicyRule{Verbs: verbs, NonResourceURLs: []string{s.NonResourcePath}})
		}
	}
	return all, false, nil
}

// about says whether a line names a user: by name, by group, or, where it says
// both, by both.
func (s *abacSpec) about(u *request.User) bool {
	if s.User == "" && s.Group == "" {
		return false
	}
	return (s.User == "" || s.User == "*" || s.User == u.Name) && (s.Group == "" || s.Group == "*" || u.InGroup(s.Group))
}

func (s *abacSpec) covers(a *Attributes) bool {
	is := func(want, have string) bool { return want == "*" || want == have }
	if a.IsResource {
		return is(s.Namespace, a.Namespace) && is(s.Resource, a.Resource) && is(s.APIGroup, a.Group)
	}
	prefix, open := strings.CutSuffix(s.NonResourcePath, "*")
	return s.NonResourcePath == a.Path || open && strings.HasPrefix(a.Path, prefix)
}
