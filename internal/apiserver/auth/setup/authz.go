package setup

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"

	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/auth/callout"
	"github.com/proa-dev/proa/internal/apiserver/auth/remote"
)

// authorizers makes lists of authorisers out of configurations.
type authorizers struct {
	*Setup
	compiler func() authorizationcel.Compiler // made when the first expression is compiled
	abac     auth.ABAC                        // nil = there is none
	required []string                         // types that must stay
}

// authorization sets who decides.
func (s *Setup) authorization(o *Authorization) error {
	z := &authorizers{Setup: s, compiler: sync.OnceValue(authorizationcel.NewDefaultCompiler)}
	if o.PolicyFile != "" {
		var err error
		if z.abac, err = auth.ReadABAC(o.PolicyFile); err != nil {
			return fmt.Errorf("--authorization-policy-file: %w", err)
		}
	}
	if o.ConfigFile == "" {
		all, err := z.list(o.configuration())
		if err != nil {
			return fmt.Errorf("--authorization-*: %w", err)
		}
		s.Auth.Authorizer.Set(all)
		return nil
	}
	const flag = "--authorization-config"
	data, err := os.ReadFile(o.ConfigFile)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	last, err := z.read(data)
	if err == nil {
		err = z.set(last)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", flag, o.ConfigFile, err)
	}
	for _, a := range last.Authorizers {
		if a.Type != modeWebhook {
			z.required = append(z.required, string(a.Type))
		}
	}
	s.follow(flag, o.ConfigFile, data, s.metrics.AuthorizationConfig, func(data []byte) error {
		c, err := z.read(data)
		if err != nil || reflect.DeepEqual(c, last) {
			return err
		}
		if err := z.set(c); err != nil {
			return err
		}
		last = c
		return nil
	})
	return nil
}

func (z *authorizers) set(c *apiserver.AuthorizationConfiguration) error {
	all, err := z.list(c)
	if err == nil {
		z.Auth.Authorizer.Set(all)
	}
	return err
}

var webhookField = regexp.MustCompile(`^(authorizers\[\d+\])\.((?:timeout|authorizedTTL|unauthorizedTTL|subjectAccessReviewVersion|matchCondition|failurePolicy|connectionInfo).*)$`)

// read a configuration and check it.
func (z *authorizers) read(data []byte) (*apiserver.AuthorizationConfiguration, error) {
	c, err := decode[*apiserver.AuthorizationConfiguration](data, "AuthorizationConfiguration")
	if err != nil {
		return nil, err
	}
	bad := validation.ValidateAuthorizationConfiguration(z.compiler(), nil, c, sets.New(Modes...), sets.New(modeWebhook))
	for _, e := range bad { // it leaves out one step of the way to a webhook's fields
		e.Field = webhookField.ReplaceAllString(e.Field, "$1.webhook.$2")
	}
	if err := explain(bad); err != nil {
		return nil, err
	}
	missing := slices.Clone(z.required)
	for n, a := range c.Authorizers {
		if a.Type == modeWebhook {
			if a.Webhook.ConnectionInfo.Type != apiserver.AuthorizationWebhookConnectionInfoTypeKubeConfigFile {
				return nil, fmt.Errorf("authorizers[%d].webhook.connectionInfo.type: %s is not for the API server itself: write KubeConfigFile", n, a.Webhook.ConnectionInfo.Type)
			}
			continue
		}
		if want := strings.ToLower(string(a.Type)); a.Name != want {
			return nil, fmt.Errorf("authorizers[%d].name: Invalid value: %q: an authorizer of type %s is called %s", n, a.Name, a.Type, want)
		}
		if a.Type == modeABAC && z.abac == nil {
			return nil, fmt.Errorf("authorizers[%d].type: ABAC needs a file: name it with --authorization-policy-file", n)
		}
		missing = slices.DeleteFunc(missing, func(m string) bool { return m == string(a.Type) })
		if z.required != nil && !slices.Contains(z.required, string(a.Type)) && (a.Type == modeNode || a.Type == modeRBAC || a.Type == modeABAC) {
			return nil, fmt.Errorf("authorizers[%d].type: %s was not there when the server started: restart it, or leave it out", n, a.Type)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("authorizers: %s was there when the server started and must stay: restart the server, or write it again", strings.Join(missing, " and "))
	}
	return c, nil
}

// list of the authorisers that a checked configuration names.
func (z *authorizers) list(c *apiserver.AuthorizationConfiguration) (all auth.First, err error) {
	for n := range c.Authorizers {
		a := &c.Authorizers[n]
		var one auth.Authorizer
		switch a.Type {
		case modeNode:
			one = z.Auth.Node
		case modeRBAC:
			one = z.Auth.RBAC
		case modeABAC:
			one = z.abac
		case modeAlwaysAllow:
			one = auth.Always(auth.Allow)
		case modeAlwaysDeny:
			one = auth.Always(auth.Deny)
		case modeWebhook:
			if one, err = z.webhook(a); err != nil {
				return nil, fmt.Errorf("authorizers[%d] (%s): %w", n, a.Name, err)
			}
		}
		all = append(all, auth.Counted(one, z.metrics, string(a.Type), a.Name))
	}
	return all, nil
}

func (z *authorizers) webhook(a *apiserver.AuthorizerConfiguration) (*remote.Access, error) {
	w := a.Webhook
	client, err := callout.Open(*w.ConnectionInfo.KubeConfigFile, callout.Options{Timeout: w.Timeout.Duration, Servers: z.metrics.Webhooks})
	if err != nil {
		return nil, err
	}
	c := remote.AccessConfig{Name: a.Name, Client: client, Version: w.SubjectAccessReviewVersion, Log: z.log, Metrics: z.metrics}
	if w.FailurePolicy == apiserver.FailurePolicyDeny {
		c.OnError = auth.Deny
	}
	if w.CacheAuthorizedRequests {
		c.Allowed = w.AuthorizedTTL.Duration
	}
	if w.CacheUnauthorizedRequests {
		c.Unallowed = w.UnauthorizedTTL.Duration
	}
	if len(w.MatchConditions) > 0 {
		match, bad := validation.ValidateAndCompileMatchConditions(z.compiler(), w.MatchConditions)
		if err := explain(bad); err != nil {
			return nil, err
		}
		match.Metrics, match.AuthorizerType, match.AuthorizerName = z.metrics.Matches(), string(a.Type), a.Name
		c.Match = match
	}
	return remote.NewAccess(c)
}

// configuration that the flags stand for.
func (o *Authorization) configuration() *apiserver.AuthorizationConfiguration {
	c := &apiserver.AuthorizationConfiguration{}
	for _, m := range o.Modes {
		a := apiserver.AuthorizerConfiguration{Type: apiserver.AuthorizerType(m), Name: strings.ToLower(m)}
		if m == modeWebhook {
			a.Name = "default"
			a.Webhook = &apiserver.WebhookConfiguration{
				AuthorizedTTL: metav1.Duration{Duration: o.AuthorizedTTL}, CacheAuthorizedRequests: o.AuthorizedTTL != 0,
				UnauthorizedTTL: metav1.Duration{Duration: o.UnauthorizedTTL}, CacheUnauthorizedRequests: o.UnauthorizedTTL != 0,
				Timeout: metav1.Duration{Duration: callout.Timeout}, FailurePolicy: apiserver.FailurePolicyNoOpinion,
				SubjectAccessReviewVersion: o.WebhookVersion,
				ConnectionInfo: apiserver.WebhookConnectionInfo{
					Type: apiserver.AuthorizationWebhookConnectionInfoTypeKubeConfigFile, KubeConfigFile: &o.WebhookConfigFile,
				},
			}
		}
		c.Authorizers = append(c.Authorizers, a)
	}
	return c
}
