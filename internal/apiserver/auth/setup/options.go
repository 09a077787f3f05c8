// Package setup builds authentication and authorisation from flags and from the
// files they name (apiserver.config.k8s.io), and follows those files: what is
// changed holds at once, and a change that makes no sense is logged and leaves
// everything as it was.
package setup

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Options are what the flags say, which are called as kube-apiserver's.
type Options struct {
	ConfigFile      string   // --authentication-config
	APIAudiences    []string // --api-audiences; nil = the issuers of service-account tokens
	Anonymous       bool     // --anonymous-auth
	AnonymousSaid   bool     // somebody has given that flag
	BootstrapTokens bool     // --enable-bootstrap-token-auth
	ClientCAFile    string   // --client-ca-file, beside the cluster's own
	TokenFile       string   // --token-auth-file

	OIDC            OIDC
	RequestHeader   RequestHeader
	ServiceAccounts ServiceAccounts
	TokenWebhook    TokenWebhook
	Authorization   Authorization
}

// OIDC is one issuer of tokens, by flags (--oidc-*).
type OIDC struct {
	Said           bool // somebody has given one of the flags
	IssuerURL      string
	ClientID       string
	CAFile         string
	UsernameClaim  string
	UsernamePrefix string // "" = the issuer and #, except for email; "-" = none
	GroupsClaim    string
	GroupsPrefix   string
	SigningAlgs    []string
	RequiredClaims map[string]string
}

// RequestHeader is authenticating proxies (--requestheader-*), beside the
// cluster's own.
type RequestHeader struct {
	ClientCAFile                                             string
	UsernameHeaders, UIDHeaders, GroupHeaders, ExtraPrefixes []string
	AllowedNames                                             []string
}

// ServiceAccounts is their tokens (--service-account-*).
type ServiceAccounts struct {
	Issuers        []string // nil = the cluster's usual one
	SigningKeyFile string   // "" = the cluster's own key
	KeyFiles       []string // of further keys whose tokens are believed
	JWKSURI        string
	MaxExpiration  time.Duration
	Extend         bool
}

// TokenWebhook is asked about tokens (--authentication-token-webhook-*).
type TokenWebhook struct {
	ConfigFile, Version string
	CacheTTL            time.Duration
}

// Authorization is who decides (--authorization-*).
type Authorization struct {
	ConfigFile        string
	Said              bool // somebody has given one of the flags below
	Modes             []string
	PolicyFile        string // of ABAC
	WebhookConfigFile string
	WebhookVersion    string
	AuthorizedTTL     time.Duration
	UnauthorizedTTL   time.Duration
}

// Modes of authorisation.
const (
	modeNode        = "Node"
	modeRBAC        = "RBAC"
	modeABAC        = "ABAC"
	modeWebhook     = "Webhook"
	modeAlwaysAllow = "AlwaysAllow"
	modeAlwaysDeny  = "AlwaysDeny"
)

// Modes there are, in the order in which help lists them.
var Modes = []string{modeAlwaysAllow, modeAlwaysDeny, modeABAC, modeWebhook, modeRBAC, modeNode}

// Defaults of the flags: upstream's, but for what kubeadm sets.
func Defaults() Options {
	return Options{
		Anonymous: true, BootstrapTokens: true,
		OIDC:            OIDC{UsernameClaim: "sub", SigningAlgs: []string{"RS256"}},
		ServiceAccounts: ServiceAccounts{Extend: true},
		TokenWebhook:    TokenWebhook{Version: "v1beta1", CacheTTL: 2 * time.Minute},
		Authorization: Authorization{
			Modes: []string{modeNode, modeRBAC}, WebhookVersion: "v1beta1",
			AuthorizedTTL: 5 * time.Minute, UnauthorizedTTL: 30 * time.Second,
		},
	}
}

// Check what the flags say by themselves. The error names the flag and what to
// write.
func (o *Options) Check() error {
	return errors.Join(o.checkOIDC(), o.checkAccounts(), o.checkHeaders(), o.Authorization.check())
}

func (o *Options) checkOIDC() error {
	switch {
	case o.ConfigFile != "" && o.OIDC.Said:
		return errors.New("--authentication-config and --oidc-* exclude each other: put the issuer into the file")
	case o.ConfigFile == "" && o.OIDC.Said && (o.OIDC.IssuerURL == "" || o.OIDC.ClientID == ""):
		return errors.New("--oidc-*: give --oidc-issuer-url and --oidc-client-id together")
	}
	return nil
}

func (o *Options) checkAccounts() error {
	var all []error
	s := &o.ServiceAccounts
	for n, issuer := range s.Issuers {
		switch _, err := url.Parse(issuer); {
		case issuer == "":
			all = append(all, errors.New("--service-account-issuer is empty: write a URL such as https://kubernetes.default.svc"))
		case err != nil && strings.Contains(issuer, ":"):
			all = append(all, fmt.Errorf("--service-account-issuer %q holds a colon but is no URL: write one such as https://kubernetes.default.svc", issuer))
		case slices.Contains(s.Issuers[:n], issuer):
			all = append(all, fmt.Errorf("--service-account-issuer %q is given twice: give it once", issuer))
		}
	}
	if s.JWKSURI != "" {
		if u, err := url.Parse(s.JWKSURI); err != nil || u.Scheme != "https" {
			all = append(all, fmt.Errorf("--service-account-jwks-uri %q: write an https URL", s.JWKSURI))
		}
	}
	if d := s.MaxExpiration; d < 0 || d > 0 && (d < time.Hour || d > 1<<32*time.Second) {
		all = append(all, fmt.Errorf("--service-account-max-token-expiration %s: write 1h or more, up to 2^32 seconds", d))
	}
	return errors.Join(all...)
}

func (o *Options) checkHeaders() error {
	r := &o.RequestHeader
	var all []error
	for flag, values := range map[string][]string{
		"username-headers": r.UsernameHeaders, "uid-headers": r.UIDHeaders, "group-headers": r.GroupHeaders,
		"extra-headers-prefix": r.ExtraPrefixes, "allowed-names": r.AllowedNames,
	} {
		if slices.ContainsFunc(values, func(v string) bool { return strings.TrimSpace(v) == "" }) {
			all = append(all, fmt.Errorf("--requestheader-%s holds an empty value: leave it out", flag))
		}
		if len(values) > 0 && r.ClientCAFile == "" {
			all = append(all, fmt.Errorf("--requestheader-%s means nothing without --requestheader-client-ca-file", flag))
		}
	}
	if r.ClientCAFile != "" && len(r.UsernameHeaders) == 0 {
		all = append(all, errors.New("--requestheader-client-ca-file means nothing without --requestheader-username-headers: write X-Remote-User"))
	}
	return errors.Join(all...)
}

func (z *Authorization) check() error {
	if z.ConfigFile != "" {
		if z.Said {
			return errors.New("--authorization-config excludes --authorization-mode and --authorization-webhook-*: put them into the file")
		}
		return nil
	}
	var all []error
	if len(z.Modes) == 0 {
		all = append(all, fmt.Errorf("--authorization-mode is empty: write one or more of %s", strings.Join(Modes, ", ")))
	}
	for n, m := range z.Modes {
		switch {
		case !slices.Contains(Modes, m):
			all = append(all, fmt.Errorf("--authorization-mode %q is none: write one or more of %s", m, strings.Join(Modes, ", ")))
		case slices.Contains(z.Modes[:n], m):
			all = append(all, fmt.Errorf("--authorization-mode %q is given twice: give it once", m))
		}
	}
	pair := func(mode, flag, file string) {
		if has := slices.Contains(z.Modes, mode); has && file == "" {
			all = append(all, fmt.Errorf("--authorization-mode %s needs a file: name it with %s", mode, flag))
		} else if !has && file != "" {
			all = append(all, fmt.Errorf("%s means nothing without --authorization-mode %s", flag, mode))
		}
	}
	pair(modeABAC, "--authorization-policy-file", z.PolicyFile)
	pair(modeWebhook, "--authorization-webhook-config-file", z.WebhookConfigFile)
	return errors.Join(all...)
}
