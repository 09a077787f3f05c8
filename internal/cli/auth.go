package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/proa-dev/proa/internal/cluster"
)

// authFlags say who may come and what they may do, as kube-apiserver's say it.
func authFlags(fs *pflag.FlagSet, o *cluster.AuthOptions) {
	*o = cluster.DefaultAuth()
	fs.StringVar(&o.ConfigFile, "authentication-config", "", "file with an AuthenticationConfiguration: issuers of tokens, and who may come without any")
	fs.StringSliceVar(&o.APIAudiences, "api-audiences", nil, "names of this API in tokens; nothing = the issuers of service accounts' tokens")
	fs.BoolVar(&o.Anonymous, "anonymous-auth", o.Anonymous, "let in as system:anonymous who shows nothing")
	fs.BoolVar(&o.BootstrapTokens, "enable-bootstrap-token-auth", o.BootstrapTokens, "believe the tokens with which nodes join")
	fs.StringVar(&o.ClientCAFile, "client-ca-file", "", "certificates of authorities whose clients are believed, besides the cluster's own")
	fs.StringVar(&o.TokenFile, "token-auth-file", "", `file with tokens: TOKEN,USER,UID,"GROUP,GROUP" on each line`)

	i := &o.OIDC
	fs.StringVar(&i.IssuerURL, "oidc-issuer-url", "", "https URL of an OpenID Connect issuer whose tokens are believed")
	fs.StringVar(&i.ClientID, "oidc-client-id", "", "audience that its tokens must have")
	fs.StringVar(&i.CAFile, "oidc-ca-file", "", "authority of the issuer's certificate; nothing = those of this machine")
	fs.StringVar(&i.UsernameClaim, "oidc-username-claim", i.UsernameClaim, "claim that names the user")
	fs.StringVar(&i.UsernamePrefix, "oidc-username-prefix", "", "before the user's name; nothing = ISSUER-URL# unless the claim is email, - = none")
	fs.StringVar(&i.GroupsClaim, "oidc-groups-claim", "", "claim that names the user's groups: a string or a list of strings")
	fs.StringVar(&i.GroupsPrefix, "oidc-groups-prefix", "", "before the groups' names")
	fs.StringSliceVar(&i.SigningAlgs, "oidc-signing-algs", i.SigningAlgs, "by which tokens may be signed: RS256, ES256, PS256, …")
	fs.StringToStringVar(&i.RequiredClaims, "oidc-required-claim", nil, "CLAIM=VALUE that tokens must have; may be repeated")

	h := &o.RequestHeader
	fs.StringVar(&h.ClientCAFile, "requestheader-client-ca-file", "", "authority of proxies that say in headers for whom they ask")
	fs.StringSliceVar(&h.AllowedNames, "requestheader-allowed-names", nil, "common names of those proxies; nothing = any that the authority has signed")
	fs.StringSliceVar(&h.UsernameHeaders, "requestheader-username-headers", nil, "headers that name the user, such as X-Remote-User")
	fs.StringSliceVar(&h.UIDHeaders, "requestheader-uid-headers", nil, "headers that hold the user's UID, such as X-Remote-Uid")
	fs.StringSliceVar(&h.GroupHeaders, "requestheader-group-headers", nil, "headers that name groups, such as X-Remote-Group")
	fs.StringSliceVar(&h.ExtraPrefixes, "requestheader-extra-headers-prefix", nil, "beginnings of headers with extra values, such as X-Remote-Extra-")

	a := &o.ServiceAccounts
	fs.StringArrayVar(&a.Issuers, "service-account-issuer", nil, "of service accounts' tokens; the first is in new ones, all are believed; nothing = the API inside the cluster")
	fs.StringVar(&a.SigningKeyFile, "service-account-signing-key-file", "", "private key that signs them; nothing = one of the cluster's own")
	fs.StringArrayVar(&a.KeyFiles, "service-account-key-file", nil, "further keys whose tokens are believed")
	fs.StringVar(&a.JWKSURI, "service-account-jwks-uri", "", "where others find the keys; nothing = at this API")
	fs.DurationVar(&a.MaxExpiration, "service-account-max-token-expiration", 0, "longest life of a token that is asked for; 0 = any")
	fs.BoolVar(&a.Extend, "service-account-extend-token-expiration", a.Extend, "let tokens of pods that say nothing live for a year, for clients that never read them again")

	w := &o.TokenWebhook
	fs.StringVar(&w.ConfigFile, "authentication-token-webhook-config-file", "", "kubeconfig of a webhook that is asked about tokens nobody here knows")
	fs.StringVar(&w.Version, "authentication-token-webhook-version", w.Version, "of the TokenReview it is sent: v1 or v1beta1")
	fs.DurationVar(&w.CacheTTL, "authentication-token-webhook-cache-ttl", w.CacheTTL, "how long its answers are remembered")

	z := &o.Authorization
	fs.StringVar(&z.ConfigFile, "authorization-config", "", "file with an AuthorizationConfiguration: who decides, in order")
	fs.StringSliceVar(&z.Modes, "authorization-mode", z.Modes, "who decides, in order: Node, RBAC, ABAC, Webhook, AlwaysAllow, AlwaysDeny")
	fs.StringVar(&z.PolicyFile, "authorization-policy-file", "", "of ABAC: a policy on each line")
	fs.StringVar(&z.WebhookConfigFile, "authorization-webhook-config-file", "", "kubeconfig of the webhook")
	fs.StringVar(&z.WebhookVersion, "authorization-webhook-version", z.WebhookVersion, "of the SubjectAccessReview it is sent: v1 or v1beta1")
	fs.DurationVar(&z.AuthorizedTTL, "authorization-webhook-cache-authorized-ttl", z.AuthorizedTTL, "how long its yes is remembered")
	fs.DurationVar(&z.UnauthorizedTTL, "authorization-webhook-cache-unauthorized-ttl", z.UnauthorizedTTL, "how long everything else is")
}

// checkAuth notes which flags were given, where that matters, and checks them all.
func checkAuth(fs *pflag.FlagSet, s *cluster.Server) error {
	o := s.Auth
	o.AnonymousSaid = fs.Changed("anonymous-auth")
	fs.Visit(func(f *pflag.Flag) {
		o.OIDC.Said = o.OIDC.Said || strings.HasPrefix(f.Name, "oidc-")
		o.Authorization.Said = o.Authorization.Said || f.Name == "authorization-mode" || strings.HasPrefix(f.Name, "authorization-webhook-")
	})
	if err := errors.Join(o.Check(), s.Audit.Check()); err != nil {
		return usageError{err}
	}
	return nil
}

// auditFlags say what is written down of requests, and where.
func auditFlags(fs *pflag.FlagSet, o *cluster.AuditOptions) {
	*o = cluster.DefaultAudit()
	fs.StringVar(&o.PolicyFile, "audit-policy-file", "", "file with an audit policy (audit.k8s.io/v1); nothing = nothing is audited")
	l := &o.Log
	fs.StringVar(&l.Path, "audit-log-path", "", "file that is written to; - = standard output")
	fs.IntVar(&l.MaxAge, "audit-log-maxage", l.MaxAge, "days after which an old file is removed; 0 = never")
	fs.IntVar(&l.MaxBackups, "audit-log-maxbackup", l.MaxBackups, "old files that are kept; 0 = all")
	fs.IntVar(&l.MaxSize, "audit-log-maxsize", l.MaxSize, "megabytes after which a new file begins; 0 = never")
	fs.StringVar(&l.Format, "audit-log-format", l.Format, "json, or legacy: one line of words")
	fs.StringVar(&l.Version, "audit-log-version", l.Version, "of the events")
	fs.BoolVar(&l.Compress, "audit-log-compress", false, "pack old files with gzip")
	deliveryFlags(fs, "log", &l.Delivery)
	h := &o.Webhook
	fs.StringVar(&h.ConfigFile, "audit-webhook-config-file", "", "kubeconfig of a webhook that events are sent to")
	fs.DurationVar(&h.InitialBackoff, "audit-webhook-initial-backoff", h.InitialBackoff, "how long to wait before the second try; further waits are longer")
	fs.StringVar(&h.Version, "audit-webhook-version", h.Version, "of the events")
	deliveryFlags(fs, "webhook", &h.Delivery)
}

func deliveryFlags(fs *pflag.FlagSet, to string, d *cluster.AuditDelivery) {
	flag := func(name string) string { return fmt.Sprintf("audit-%s-%s", to, name) }
	fs.StringVar(&d.Mode, flag("mode"), d.Mode, "batch: in the background; blocking: requests wait; blocking-strict: and are refused if they cannot be recorded")
	fs.IntVar(&d.Buffer, flag("batch-buffer-size"), d.Buffer, "events that may wait (batch)")
	fs.IntVar(&d.MaxSize, flag("batch-max-size"), d.MaxSize, "events that go together (batch)")
	fs.DurationVar(&d.MaxWait, flag("batch-max-wait"), d.MaxWait, "how long one waits for others to go with it (batch)")
	fs.BoolVar(&d.Throttle, flag("batch-throttle-enable"), d.Throttle, "bound the batches in a second (batch)")
	fs.Float32Var(&d.QPS, flag("batch-throttle-qps"), d.QPS, "batches in a second (batch)")
	fs.IntVar(&d.Burst, flag("batch-throttle-burst"), d.Burst, "batches at once after a pause (batch)")
	fs.BoolVar(&d.Truncate, flag("truncate-enabled"), false, "bound the size of events and batches")
	fs.Int64Var(&d.TruncateEvent, flag("truncate-max-event-size"), d.TruncateEvent, "bytes of an event, which loses its objects first")
	fs.Int64Var(&d.TruncateMaxBatch, flag("truncate-max-batch-size"), d.TruncateMaxBatch, "bytes of a batch")
}
