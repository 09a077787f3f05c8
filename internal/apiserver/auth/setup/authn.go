package setup

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"

	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/auth/callout"
	"github.com/proa-dev/proa/internal/apiserver/auth/oidc"
	"github.com/proa-dev/proa/internal/apiserver/auth/remote"
)

// authentication adds the sorts of tokens that files and webhooks know, and says
// who may come without credentials.
func (s *Setup) authentication(o *Options, _ Own, base *auth.Config) error {
	base.NoBootstrap = !o.BootstrapTokens
	base.Anonymous.Off = !o.Anonymous
	if z := &o.Authorization; z.ConfigFile == "" && slices.Contains(z.Modes, modeAlwaysAllow) && o.Anonymous {
		s.log.Warn("anybody could do everything with --authorization-mode AlwaysAllow: --anonymous-auth is taken to be false")
		base.Anonymous.Off = true
	}
	if o.TokenFile != "" {
		t, err := auth.ReadTokenFile(o.TokenFile)
		if err != nil {
			return fmt.Errorf("--token-auth-file: %w", err)
		}
		base.Before = append(base.Before, t)
	}
	audiences := o.APIAudiences
	if len(audiences) == 0 {
		audiences = base.Issuers
	}
	if err := s.issuers(o, audiences, base); err != nil {
		return err
	}
	return s.tokenWebhook(&o.TokenWebhook, audiences, base)
}

func (s *Setup) tokenWebhook(w *TokenWebhook, audiences []string, base *auth.Config) error {
	if w.ConfigFile == "" {
		return nil
	}
	c, err := callout.Open(w.ConfigFile, callout.Options{Servers: s.metrics.Webhooks})
	if err != nil {
		return fmt.Errorf("--authentication-token-webhook-config-file: %w", err)
	}
	t, err := remote.NewTokens(remote.TokenConfig{Client: c, Version: w.Version, Audiences: audiences, TTL: w.CacheTTL, Log: s.log, Metrics: s.metrics})
	if err != nil {
		return fmt.Errorf("--authentication-token-webhook-version: %w", err)
	}
	base.After = append(base.After, t)
	return nil
}

// issuers of tokens, by file or by flags.
func (s *Setup) issuers(o *Options, audiences []string, base *auth.Config) error {
	if o.ConfigFile == "" && o.OIDC.IssuerURL == "" {
		return nil
	}
	known := oidc.NewIssuers(s.log, s.metrics)
	base.After = append(base.After, auth.ForAPI{TokenAuthenticator: known, Audiences: audiences})
	set := func(c *apiserver.AuthenticationConfiguration, algorithms []string) error {
		compiler := authenticationcel.NewDefaultCompiler()
		if err := explain(validation.ValidateAuthenticationConfiguration(compiler, c, base.Issuers)); err != nil {
			return err
		}
		return known.Set(oidc.Config{JWT: c.JWT, Algorithms: algorithms, Compiler: compiler, Disallowed: base.Issuers})
	}
	if o.ConfigFile == "" {
		c, err := o.OIDC.configuration()
		if err != nil {
			return err
		}
		if err := set(c, o.OIDC.SigningAlgs); err != nil {
			return fmt.Errorf("--oidc-*: %w", err)
		}
		return nil
	}
	const flag = "--authentication-config"
	read := func(data []byte) (*apiserver.AuthenticationConfiguration, error) {
		return decode[*apiserver.AuthenticationConfiguration](data, "AuthenticationConfiguration")
	}
	data, err := os.ReadFile(o.ConfigFile)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	first, err := read(data)
	if err == nil {
		err = set(first, nil)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", flag, o.ConfigFile, err)
	}
	if a := first.Anonymous; a != nil {
		if o.AnonymousSaid {
			return fmt.Errorf("%s %s: anonymous: --anonymous-auth says it already: leave one of them out", flag, o.ConfigFile)
		}
		base.Anonymous = auth.Anonymous{Off: !a.Enabled}
		for _, c := range a.Conditions {
			base.Anonymous.Paths = append(base.Anonymous.Paths, c.Path)
		}
	}
	s.follow(flag, o.ConfigFile, data, s.metrics.AuthenticationConfig, func(data []byte) error {
		c, err := read(data)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(c.Anonymous, first.Anonymous) {
			return errors.New("anonymous: it cannot be changed while the server runs: restart it, or write what was there before")
		}
		return set(c, nil)
	})
	return nil
}

// configuration that the flags stand for.
func (f *OIDC) configuration() (*apiserver.AuthenticationConfiguration, error) {
	for _, alg := range f.SigningAlgs {
		if !slices.Contains(oidc.Algorithms, alg) {
			return nil, fmt.Errorf("--oidc-signing-algs %q: write one or more of %v", alg, oidc.Algorithms)
		}
	}
	prefix := f.UsernamePrefix
	switch {
	case prefix == "-":
		prefix = ""
	case prefix == "" && f.UsernameClaim != "email":
		prefix = f.IssuerURL + "#"
	}
	j := apiserver.JWTAuthenticator{
		Issuer:        apiserver.Issuer{URL: f.IssuerURL, Audiences: []string{f.ClientID}},
		ClaimMappings: apiserver.ClaimMappings{Username: apiserver.PrefixedClaimOrExpression{Claim: cmp.Or(f.UsernameClaim, "sub"), Prefix: &prefix}},
	}
	if f.GroupsClaim != "" {
		j.ClaimMappings.Groups = apiserver.PrefixedClaimOrExpression{Claim: f.GroupsClaim, Prefix: &f.GroupsPrefix}
	}
	if f.CAFile != "" {
		pem, err := os.ReadFile(f.CAFile)
		if err != nil {
			return nil, fmt.Errorf("--oidc-ca-file: %w", err)
		}
		j.Issuer.CertificateAuthority = string(pem)
	}
	for _, claim := range slices.Sorted(maps.Keys(f.RequiredClaims)) {
		j.ClaimValidationRules = append(j.ClaimValidationRules, apiserver.ClaimValidationRule{Claim: claim, RequiredValue: f.RequiredClaims[claim]})
	}
	return &apiserver.AuthenticationConfiguration{JWT: []apiserver.JWTAuthenticator{j}}, nil
}
