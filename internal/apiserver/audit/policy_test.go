package audit

import (
	"strings"
	"testing"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

const head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"

func policy(t *testing.T, text string) *Policy {
	t.Helper()
	p, problems, err := ParsePolicy([]byte(head + text))
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	return p
}

// about is a request in short form: "VERB GROUP/RESOURCE/SUB NAMESPACE NAME" or "VERB /PATH".
func about(text string) *request.Info {
	f := strings.Fields(text + " - - -")
	if strings.HasPrefix(f[1], "/") && !strings.HasPrefix(f[1], "//") {
		return &request.Info{Verb: f[0], Path: f[1]}
	}
	part := strings.Split(strings.TrimPrefix(f[1], "core"), "/")
	i := &request.Info{Verb: f[0], IsResource: true, Group: part[0], Resource: part[1], Namespace: strings.Trim(f[2], "-"), Name: strings.Trim(f[3], "-")}
	if len(part) > 2 {
		i.Subresource = part[2]
	}
	return i
}

func TestPolicy(t *testing.T) {
	p := policy(t, `
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch], resources: [{group: "", resources: [endpoints, services]}]}
- {level: None, userGroups: ["system:nodes", "quiet"], verbs: [get]}
- {level: None, nonResourceURLs: ["/healthz*", /version]}
- {level: Metadata, resources: [{group: "", resources: [secrets, configmaps/*, "*/token"]}]}
- {level: Request, namespaces: [kube-system], resources: [{group: "", resources: [pods], resourceNames: [one]}]}
- {level: Request, namespaces: [""], resources: [{group: rbac.authorization.k8s.io}]}
- {level: RequestResponse, resources: [{group: apps, resources: ["*"]}, {group: "*", resources: [leases]}], omitStages: [ResponseComplete]}
- {level: Metadata, nonResourceURLs: ["*"]}
`)
	ann := &request.User{Name: "ann", Groups: []string{"g"}}
	for _, c := range []struct {
		who  *request.User
		what string
		want Level
	}{
		{&request.User{Name: "system:kube-proxy"}, "watch core/services", None},
		{&request.User{Name: "system:kube-proxy"}, "get core/services", None}, // by no rule
		{&request.User{Name: "system:kube-proxy"}, "get /x", Metadata},
		{&request.User{Name: "n", Groups: []string{"x", "quiet"}}, "get core/secrets ns s", None},
		{&request.User{Name: "n", Groups: []string{"quiet"}}, "list core/secrets ns", Metadata},
		{nil, "get core/secrets ns s", Metadata}, // nobody known: rules about users do not match
		{ann, "get /healthz/etcd", None},
		{ann, "get /healthz", None},
		{ann, "get /version", None},
		{ann, "get /version/x", Metadata},
		{ann, "post /apis", Metadata},
		{ann, "get core/secrets ns s", Metadata},
		{ann, "get core/secrets/x ns s", None},
		{ann, "get core/configmaps ns s", Metadata},
		{ann, "get core/configmaps/x ns s", Metadata},
		{ann, "create core/serviceaccounts/token ns s", Metadata},
		{ann, "create apps/serviceaccounts/token ns s", RequestResponse},
		{ann, "get core/pods kube-system one", Request},
		{ann, "get core/pods kube-system two", None},
		{ann, "get core/pods default one", None},
		{ann, "get core/pods/log kube-system one", None},
		{ann, "create rbac.authorization.k8s.io/clusterroles", Request},
		{ann, "create rbac.authorization.k8s.io/roles ns", None},
		{ann, "patch apps/deployments/scale ns d", RequestResponse},
		{ann, "update coordination.k8s.io/leases ns l", RequestResponse},
	} {
		if d := p.Decide(c.who, about(c.what)); d.Level != c.want {
			t.Errorf("%s: %v, want %v", c.what, d.Level, c.want)
		}
	}
	d := p.Decide(ann, about("get apps/deployments ns d"))
	for stage, want := range map[string]bool{"RequestReceived": true, "ResponseComplete": true, "ResponseStarted": false, "Panic": false} {
		if d.omits(stageOf(stage)) != want {
			t.Errorf("%s is left out: %v", stage, !want)
		}
	}
}

func TestPolicyOmitsManagedFields(t *testing.T) {
	p := policy(t, "omitManagedFields: true\nrules:\n- {level: Request, users: [a]}\n- {level: Request, users: [b], omitManagedFields: false}\n")
	for user, want := range map[string]bool{"a": true, "b": false} {
		if d := p.Decide(&request.User{Name: user}, about("get core/pods")); d.OmitManagedFields != want {
			t.Errorf("%s: %v", user, d)
		}
	}
}

func TestBadPolicy(t *testing.T) {
	for text, want := range map[string]string{
		"":          "write apiVersion: audit.k8s.io/v1 and kind: Policy",
		"a: [":      "yaml",
		"kind: Pod": `kind "Pod" are no audit policy`,
		"apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]": "write apiVersion: audit.k8s.io/v1",
		head:                                "rules: Required value: a policy without rules records nothing; write one such as {level: Metadata}",
		head + "rules: [{users: [a]}]":      "rules[0].level: Required value: write None, Metadata, Request or RequestResponse",
		head + "rules: [{level: metadata}]": `rules[0].level: Unsupported value: "metadata": supported values: "None", "Metadata", "Request", "RequestResponse"`,
		head + "rules: [{level: None, nonResourceURLs: [healthz]}]":                     `rules[0].nonResourceURLs[0]: Invalid value: "healthz": non-resource URL rules must begin with a '/' character`,
		head + "rules: [{level: None, nonResourceURLs: [/a*b]}]":                        "wildcards '*' must be the final character",
		head + "rules: [{level: None, nonResourceURLs: [/a], namespaces: [b]}]":         "rules cannot apply to both regular resources and non-resource URLs",
		head + "rules: [{level: None, resources: [{group: apps/v1}]}]":                  `rules[0].resources.group: Invalid value: "apps/v1"`,
		head + "rules: [{level: None, resources: [{group: apps, resourceNames: [a]}]}]": "using resourceNames requires at least one resource",
		head + "omitStages: [Done]\nrules: [{level: None}]":                             `omitStages[0]: Invalid value: "Done": allowed stages are RequestReceived,ResponseStarted`,
		head + "rules: [{level: None, omitStages: [Never]}]":                            `rules[0].omitStages[0]: Invalid value: "Never"`,
		head + "rules: 7": "rules",
	} {
		if _, _, err := ParsePolicy([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q\ngot  %v\nwant %s", text, err, want)
		}
	}
	_, problems, err := ParsePolicy([]byte(head + "rules: [{level: None, user: [a]}]"))
	if err != nil || len(problems) != 1 || !strings.Contains(problems[0].Error(), `unknown field "rules[0].user"`) {
		t.Errorf("a typing mistake: %v, %v", problems, err)
	}
}
