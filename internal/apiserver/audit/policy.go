package audit

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/apis/audit/validation"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// Level is how much of a request is recorded.
type Level int8

const (
	None            Level = iota
	Metadata              // who, what, when, and how it ended
	Request               // and what was sent
	RequestResponse       // and what was answered
)

var levels = [...]auditv1.Level{auditv1.LevelNone, auditv1.LevelMetadata, auditv1.LevelRequest, auditv1.LevelRequestResponse}

func (l Level) String() string { return string(levels[l]) }

// Decision of a policy on one request.
type Decision struct {
	Level             Level
	Omit              []auditv1.Stage
	OmitManagedFields bool
}

func (d *Decision) omits(s auditv1.Stage) bool { return slices.Contains(d.Omit, s) }

// Policy says what is recorded. The first rule that matches decides; without one
// nothing is.
type Policy struct{ auditv1.Policy }

// ReadPolicy of a file. problems are what it says that nobody understands, and is
// ignored; the error names the file, the field and what may be written there.
func ReadPolicy(file string) (p *Policy, problems []error, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	if p, problems, err = ParsePolicy(data); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	return p, problems, nil
}

// ParsePolicy of YAML or JSON.
func ParsePolicy(data []byte) (p *Policy, problems []error, err error) {
	text, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, nil, err
	}
	p = &Policy{}
	if problems, err = kjson.UnmarshalStrict(text, &p.Policy); err != nil {
		return nil, nil, err
	}
	if want := (metav1.TypeMeta{APIVersion: auditv1.SchemeGroupVersion.String(), Kind: "Policy"}); p.TypeMeta != want {
		return nil, nil, fmt.Errorf("apiVersion %q and kind %q are no audit policy: write apiVersion: %s and kind: %s", p.APIVersion, p.Kind, want.APIVersion, want.Kind)
	}
	internal := &auditinternal.Policy{}
	if err := auditv1.Convert_v1_Policy_To_audit_Policy(&p.Policy, internal, nil); err != nil {
		return nil, nil, err
	}
	if all := validation.ValidatePolicy(internal); len(all) > 0 {
		var texts []string
		for _, e := range all {
			text := e.Error()
			if strings.HasSuffix(e.Field, ".level") && p.levelMissing(e.Field) {
				text += ": write None, Metadata, Request or RequestResponse"
			}
			texts = append(texts, text)
		}
		return nil, nil, errors.New(strings.Join(texts, "; "))
	}
	if len(p.Rules) == 0 {
		return nil, nil, errors.New("rules: Required value: a policy without rules records nothing; write one such as {level: Metadata}")
	}
	for n := range p.Rules {
		p.Rules[n].OmitStages = slices.Concat(p.OmitStages, p.Rules[n].OmitStages)
	}
	return p, problems, nil
}

// levelMissing says that the rule whose level a field names has none.
func (p *Policy) levelMissing(field string) bool {
	var n int
	_, err := fmt.Sscanf(field, "rules[%d].level", &n)
	return err == nil && n < len(p.Rules) && p.Rules[n].Level == ""
}

// Decide on a request; u is nil when nobody knows who asks.
func (p *Policy) Decide(u *request.User, i *request.Info) Decision {
	for n := range p.Rules {
		r := &p.Rules[n]
		if !matches(r, u, i) {
			continue
		}
		d := Decision{Level: Level(slices.Index(levels[:], r.Level)), Omit: r.OmitStages, OmitManagedFields: p.OmitManagedFields}
		if r.OmitManagedFields != nil {
			d.OmitManagedFields = *r.OmitManagedFields
		}
		return d
	}
	return Decision{}
}

// matches says whether a rule is about a request.
func matches(r *auditv1.PolicyRule, u *request.User, i *request.Info) bool {
	if len(r.Users) > 0 && (u == nil || !slices.Contains(r.Users, u.Name)) {
		return false
	}
	if len(r.UserGroups) > 0 && (u == nil || !slices.ContainsFunc(u.Groups, func(g string) bool { return slices.Contains(r.UserGroups, g) })) {
		return false
	}
	if len(r.Verbs) > 0 && !slices.Contains(r.Verbs, i.Verb) {
		return false
	}
	switch {
	case len(r.Namespaces) > 0 || len(r.Resources) > 0:
		return i.IsResource && (len(r.Namespaces) == 0 || slices.Contains(r.Namespaces, i.Namespace)) && matchesResource(r.Resources, i)
	case len(r.NonResourceURLs) > 0:
		return !i.IsResource && matchesPath(r.NonResourceURLs, i.Path)
	}
	return true
}

func matchesResource(groups []auditv1.GroupResources, i *request.Info) bool {
	if len(groups) == 0 {
		return true
	}
	whole := i.Resource
	if i.Subresource != "" {
		whole += "/" + i.Subresource
	}
	for _, g := range groups {
		if g.Group != "*" && g.Group != i.Group {
			continue
		}
		if len(g.Resources) == 0 {
			return true
		}
		if len(g.ResourceNames) > 0 && !slices.Contains(g.ResourceNames, i.Name) {
			continue
		}
		for _, want := range g.Resources {
			before, after, _ := strings.Cut(want, "/")
			switch {
			case want == "*", want == whole, // itself, or everything
				before == "*" && after != "" && after == i.Subresource, // */status
				after == "*" && before == i.Resource:                   // pods/*
				return true
			}
		}
	}
	return false
}

func matchesPath(paths []string, path string) bool {
	return slices.ContainsFunc(paths, func(want string) bool {
		prefix, open := strings.CutSuffix(want, "*")
		return want == path || open && strings.HasPrefix(path, prefix)
	})
}
