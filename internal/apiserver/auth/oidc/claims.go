package oidc

import (
	"context"
	"errors"
	"fmt"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// claims of a token, as JSON has them.
type claims map[string]any

// text of a claim.
func (c claims) text(name string) (string, error) {
	v, ok := c[name]
	if !ok {
		return "", errors.New("claim not present")
	}
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("the claim is a %T, not a string", v)
	}
	return s, nil
}

// texts of a claim that is a string or a list of strings.
func (c claims) texts(name string) ([]string, error) {
	switch v := c[name].(type) {
	case string:
		return []string{v}, nil
	case nil:
		return nil, nil
	case []any:
		all := make([]string, 0, len(v))
		for _, one := range v {
			s, ok := one.(string)
			if !ok {
				return nil, fmt.Errorf("the claim holds a %T, not only strings", one)
			}
			all = append(all, s)
		}
		return all, nil
	default:
		return nil, fmt.Errorf("the claim is a %T, not a string or a list of strings", v)
	}
}

// user that the claims describe, if the rules let it in.
func (i *issuer) user(ctx context.Context, c claims) (*request.User, error) {
	var value traits.Mapper
	if m := i.mapper; m.Username != nil || m.Groups != nil || m.UID != nil || m.Extra != nil || m.ClaimValidationRules != nil {
		value = mapValue(c)
	}
	u := &request.User{}
	var err error
	if u.Name, err = i.name(ctx, c, value); err != nil {
		return nil, err
	}
	if u.Groups, err = i.groups(ctx, c, value); err != nil {
		return nil, err
	}
	if u.UID, err = i.uid(ctx, c, value); err != nil {
		return nil, err
	}
	if u.Extra, err = i.extra(ctx, c, value); err != nil {
		return nil, err
	}
	for _, rule := range i.spec.ClaimValidationRules {
		if rule.Claim == "" {
			continue
		}
		if _, ok := c[rule.Claim]; !ok {
			return nil, fmt.Errorf("required claim %s not present in ID token", rule.Claim)
		}
		got, err := c.text(rule.Claim)
		if err != nil {
			return nil, fmt.Errorf("parse claim %s: %w", rule.Claim, err)
		}
		if got != rule.RequiredValue {
			return nil, fmt.Errorf("required claim %s value does not match. Got = %s, want = %s", rule.Claim, got, rule.RequiredValue)
		}
	}
	if rules := i.mapper.ClaimValidationRules; rules != nil {
		results, err := rules.EvalClaimMappings(ctx, value)
		if err == nil {
			err = allTrue(results)
		}
		if err != nil {
			return nil, fmt.Errorf("error evaluating claim validation expression: %w", err)
		}
	}
	if rules := i.mapper.UserValidationRules; rules != nil {
		results, err := rules.EvalUser(ctx, userValue(u))
		if err == nil {
			err = allTrue(results)
		}
		if err != nil {
			return nil, fmt.Errorf("error evaluating user info validation rule: %w", err)
		}
	}
	return u, nil
}

// allTrue refuses when a rule does not hold.
func allTrue(results []authenticationcel.EvaluationResult) error {
	for _, r := range results {
		if r.EvalResult.Type() != celgo.BoolType {
			return errors.New("validation expression must return a boolean")
		}
		if r.EvalResult.Value().(bool) {
			continue
		}
		message := ""
		switch x := r.ExpressionAccessor.(type) {
		case *authenticationcel.ClaimValidationCondition:
			message = x.Message
		case *authenticationcel.UserValidationCondition:
			message = x.Message
		}
		return fmt.Errorf("validation expression '%s' failed: %s", r.ExpressionAccessor.GetExpression(), message)
	}
	return nil
}

// evalText evaluates an expression that must give a string.
func evalText(ctx context.Context, m authenticationcel.ClaimsMapper, value traits.Mapper, what string) (string, error) {
	r, err := m.EvalClaimMapping(ctx, value)
	if err == nil && r.EvalResult.Type() != celgo.StringType {
		err = fmt.Errorf("%s claim expression must return a string", what)
	}
	if err != nil {
		return "", fmt.Errorf("error evaluating %s claim expression: %w", what, err)
	}
	return r.EvalResult.Value().(string), nil
}

func (i *issuer) name(ctx context.Context, c claims, value traits.Mapper) (string, error) {
	if m := i.mapper.Username; m != nil {
		name, err := evalText(ctx, m, value, "username")
		if err == nil && name == "" {
			err = errors.New("empty username via CEL expression is not allowed")
		}
		return name, err
	}
	from := i.spec.ClaimMappings.Username
	name, err := c.text(from.Claim)
	if err != nil {
		return "", fmt.Errorf("parse username claims %q: %w", from.Claim, err)
	}
	if name == "" {
		return "", fmt.Errorf("the username claim %q is empty", from.Claim)
	}
	if from.Claim == "email" {
		if v, said := c["email_verified"]; said { // OpenID Connect Core 5.1
			verified, ok := v.(bool)
			if !ok {
				return "", fmt.Errorf("parse 'email_verified' claim: it is a %T, not a boolean", v)
			}
			if !verified {
				return "", errors.New("email not verified")
			}
		}
	}
	if from.Prefix != nil {
		name = *from.Prefix + name
	}
	return name, nil
}

func (i *issuer) groups(ctx context.Context, c claims, value traits.Mapper) ([]string, error) {
	if m := i.mapper.Groups; m != nil {
		r, err := m.EvalClaimMapping(ctx, value)
		if err != nil {
			return nil, fmt.Errorf("error evaluating group claim expression: %w", err)
		}
		all, err := texts(r.EvalResult)
		if err != nil {
			return nil, fmt.Errorf("error evaluating group claim expression: %w", err)
		}
		return all, nil
	}
	from := i.spec.ClaimMappings.Groups
	if from.Claim == "" {
		return nil, nil
	}
	if _, ok := c[from.Claim]; !ok {
		return nil, nil
	}
	all, err := c.texts(from.Claim)
	if err != nil {
		return nil, fmt.Errorf("parse groups claim %q: %w", from.Claim, err)
	}
	if from.Prefix != nil {
		for n := range all {
			all[n] = *from.Prefix + all[n]
		}
	}
	return all, nil
}

func (i *issuer) uid(ctx context.Context, c claims, value traits.Mapper) (string, error) {
	if m := i.mapper.UID; m != nil {
		return evalText(ctx, m, value, "uid")
	}
	from := i.spec.ClaimMappings.UID.Claim
	if from == "" {
		return "", nil
	}
	uid, err := c.text(from)
	if err != nil {
		return "", fmt.Errorf("parse uid claim %q: %w", from, err)
	}
	return uid, nil
}

func (i *issuer) extra(ctx context.Context, c claims, value traits.Mapper) (map[string][]string, error) {
	extra := map[string][]string{}
	if jti, _ := c["jti"].(string); jti != "" {
		extra["authentication.kubernetes.io/credential-id"] = []string{"JTI=" + jti}
	}
	if i.mapper.Extra == nil {
		return extra, nil
	}
	results, err := i.mapper.Extra.EvalClaimMappings(ctx, value)
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		x, ok := r.ExpressionAccessor.(*authenticationcel.ExtraMappingExpression)
		if !ok {
			return nil, fmt.Errorf("error evaluating extra claim expression: %T is no extra mapping", r.ExpressionAccessor)
		}
		values, err := texts(r.EvalResult)
		if err != nil {
			return nil, fmt.Errorf("error evaluating extra claim expression: %s: %w", x.Expression, err)
		}
		if len(values) > 0 {
			extra[x.Key] = values
		}
	}
	return extra, nil
}

var errNoTexts = errors.New("expression must return a string or a list of strings")

// texts of what an expression gives: "", [] and null are none, and so are empty
// strings in a list.
func texts(v ref.Val) ([]string, error) {
	switch v := v.(type) {
	case traits.Lister:
		var all []string
		for it := v.Iterator(); it.HasNext() == celTrue; {
			s, ok := it.Next().Value().(string)
			if !ok {
				return nil, errNoTexts
			}
			if s != "" {
				all = append(all, s)
			}
		}
		return all, nil
	}
	switch v.Type() {
	case celgo.NullType:
		return nil, nil
	case celgo.StringType:
		if s := v.Value().(string); s != "" {
			return []string{s}, nil
		}
		return nil, nil
	}
	return nil, errNoTexts
}
