package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/auth/metricstest"
	"github.com/proa-dev/proa/internal/apiserver/auth/policy"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache/cachetest"
)

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func build(t *testing.T, objects ...api.Object) (*cachetest.World, *Auth) {
	t.Helper()
	w := cachetest.New(t, objects...)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Catalog: w.Catalog, Of: w.Reader, ClientCA: x509.NewCertPool, Issuers: []string{"https://issuer"}, Signer: key}
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return w, a
}

func may(t *testing.T, z Authorizer, user, verb, what string, groups ...string) bool {
	t.Helper()
	a := Attributes{Verb: verb, IsResource: true}
	if strings.HasPrefix(what, "/") {
		a = Attributes{Verb: verb, Path: what}
	} else { // GROUP:RESOURCE/SUB NAMESPACE NAME
		f := strings.Fields(what + " - -")
		group, res, found := strings.Cut(f[0], ":")
		if !found {
			group, res = "", f[0]
		}
		a.Group = group
		a.Resource, a.Subresource, _ = strings.Cut(res, "/")
		a.Namespace, a.Name = strings.Trim(f[1], "-"), strings.Trim(f[2], "-")
		if len(f) > 5 {
			a.FieldSelector = f[3]
		}
	}
	d, _, err := z.Authorize(context.Background(), &request.User{Name: user, Groups: groups}, a)
	if err != nil {
		t.Fatal(err)
	}
	return d == Allow
}

func TestRBAC(t *testing.T) {
	w, a := build(t,
		&rbacv1.ClusterRole{ObjectMeta: meta("", "reader"), Rules: []rbacv1.PolicyRule{
			{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{"pods", "pods/log"}},
			{Verbs: []string{"get"}, APIGroups: []string{"apps"}, Resources: []string{"*/scale"}},
			{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz", "/metrics/*"}},
			{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"one"}},
		}},
		&rbacv1.RoleBinding{ObjectMeta: meta("ns", "b"), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"}, Subjects: []rbacv1.Subject{
			{Kind: "User", APIGroup: rbacv1.GroupName, Name: "ann"}, {Kind: "ServiceAccount", Name: "sa"},
		}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "b"), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"}, Subjects: []rbacv1.Subject{
			{Kind: "Group", APIGroup: rbacv1.GroupName, Name: "ops"},
		}},
	)
	for _, c := range []struct {
		user, verb, what, group string
		want                    bool
	}{
		{"ann", "get", "pods ns", "", true},
		{"ann", "get", "pods/log ns", "", true},
		{"ann", "get", "pods/exec ns", "", false},
		{"ann", "delete", "pods ns", "", false},
		{"ann", "get", "pods other", "", false},
		{"ann", "get", "/healthz", "", false}, // a binding in a namespace gives no paths
		{"ann", "get", "apps:deployments/scale ns", "", true},
		{"ann", "get", "apps:deployments ns", "", false},
		{"ann", "get", "secrets ns one", "", true},
		{"ann", "get", "secrets ns two", "", false},
		{"ann", "list", "secrets ns", "", false},
		{"system:serviceaccount:ns:sa", "list", "pods ns", "", true},
		{"system:serviceaccount:other:sa", "list", "pods ns", "", false},
		{"bob", "get", "pods any", "ops", true},
		{"bob", "get", "/metrics/x", "ops", true},
		{"bob", "get", "/metric", "ops", false},
		{"root", "impersonate", "anything", request.Masters, true},
	} {
		if got := may(t, a.RBAC, c.user, c.verb, c.what, c.group); got != c.want {
			t.Errorf("%s %s %s: %v", c.user, c.verb, c.what, got)
		}
	}
	w.Delete(&rbacv1.RoleBinding{ObjectMeta: meta("ns", "b")})
	if may(t, a.RBAC, "ann", "get", "pods ns") {
		t.Error("a deleted binding still allows")
	}
}

func TestBootstrapPolicy(t *testing.T) {
	_, a := build(t, policy.Objects()...)
	bind := &rbacv1.RoleBinding{ObjectMeta: meta("ns", "edit"), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "edit"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "ed"}}}
	w2, a2 := build(t, append(policy.Objects(), bind)...)
	_ = w2
	for _, c := range []struct {
		z                Authorizer
		user, verb, what string
		groups           []string
		want             bool
	}{
		{a.RBAC, "x", "get", "/healthz", []string{request.Unauthenticated}, true},
		{a.RBAC, "x", "get", "/api", []string{request.Unauthenticated}, false},
		{a.RBAC, "x", "get", "/api", []string{request.Authenticated}, true},
		{a.RBAC, "x", "create", "authorization.k8s.io:selfsubjectaccessreviews", []string{request.Authenticated}, true},
		{a.RBAC, "system:kube-proxy", "list", "services", nil, true},
		{a2.RBAC, "ed", "create", "apps:deployments ns", nil, true},
		{a2.RBAC, "ed", "get", "pods ns", nil, true}, // collected from view
		{a2.RBAC, "ed", "create", "rbac.authorization.k8s.io:roles ns", nil, false},
	} {
		if got := may(t, c.z, c.user, c.verb, c.what, c.groups...); got != c.want {
			t.Errorf("%s %s %s: %v", c.user, c.verb, c.what, got)
		}
	}
}

func TestMergePolicy(t *testing.T) {
	for _, want := range policy.Objects() {
		if policy.Merge(want, want) != nil {
			t.Errorf("%s needs mending though it is as it should be", want.GetName())
		}
		if r, ok := want.(*rbacv1.ClusterRole); ok && len(r.Rules) > 0 && r.AggregationRule == nil {
			less := r.DeepCopy()
			own := rbacv1.PolicyRule{Verbs: []string{"own"}}
			less.Rules = append(less.Rules[1:], own)
			mended, _ := policy.Merge(less, want).(*rbacv1.ClusterRole)
			if mended == nil || len(mended.Rules) != len(r.Rules)+1 {
				t.Errorf("%s: got %v", r.Name, mended)
			}
			less.Annotations["rbac.authorization.kubernetes.io/autoupdate"] = "false"
			if policy.Merge(less, want) != nil {
				t.Errorf("%s was mended against its owner's wish", r.Name)
			}
		}
	}
}

func TestNode(t *testing.T) {
	pod := func(name, node string, f func(*corev1.PodSpec)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: meta("ns", name), Spec: corev1.PodSpec{NodeName: node, ServiceAccountName: "sa-" + name, Containers: []corev1.Container{{Name: "c"}}}}
		f(&p.Spec)
		return p
	}
	_, a := build(t,
		pod("mine", "n1", func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "vol"}}},
				{Name: "p", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}}}
			s.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}}
		}),
		pod("theirs", "n2", func(s *corev1.PodSpec) { s.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}} }),
		&corev1.PersistentVolumeClaim{ObjectMeta: meta("ns", "claim"), Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}},
		&corev1.PersistentVolume{ObjectMeta: meta("", "pv")},
		&networkingv1.Ingress{ObjectMeta: meta("ns", "i"), Spec: networkingv1.IngressSpec{TLS: []networkingv1.IngressTLS{{SecretName: "tls"}}}},
	)
	node := []string{request.Nodes, request.Authenticated}
	for _, c := range []struct {
		user, verb, what string
		groups           []string
		want             bool
	}{
		{"system:node:n1", "get", "secrets ns vol", node, true},
		{"system:node:n1", "watch", "secrets ns vol", node, true},
		{"system:node:n1", "get", "secrets ns pull", node, false},
		{"system:node:n2", "get", "secrets ns pull", node, true},
		{"system:node:n1", "list", "secrets ns", node, false},
		{"system:node:n1", "get", "configmaps ns cm", node, true},
		{"system:node:n1", "get", "persistentvolumes - pv", node, true},
		{"system:node:n2", "get", "persistentvolumes - pv", node, false},
		{"system:node:n1", "create", "serviceaccounts/token ns sa-mine", node, true},
		{"system:node:n1", "create", "serviceaccounts/token ns sa-theirs", node, false},
		{"system:node:n1", "get", "nodes - n1", node, true},
		{"system:node:n1", "get", "nodes - n2", node, false},
		{"system:node:n1", "patch", "nodes/status - n1", node, true},
		{"system:node:n1", "list", "pods - - spec.nodeName=n1", node, true},
		{"system:node:n1", "list", "pods - - spec.nodeName=n2", node, false},
		{"system:node:n1", "list", "pods", node, false},
		{"system:node:n1", "get", "pods ns theirs", node, false},
		{"system:node:n1", "update", "coordination.k8s.io:leases kube-node-lease n1", node, true},
		{"system:node:n1", "update", "coordination.k8s.io:leases kube-node-lease n2", node, false},
		{"system:node:n1", "list", "services", node, true},
		{"system:node:n1", "create", "apps:deployments ns", node, false},
		{"system:node:n1", "get", "secrets ns vol", nil, false}, // the name alone makes no node
		{"net", "get", "secrets ns tls", []string{NetworkGroup}, true},
		{"net", "get", "secrets ns vol", []string{NetworkGroup}, false},
	} {
		if got := may(t, a.Authorizer, c.user, c.verb, c.what, c.groups...); got != c.want {
			t.Errorf("%s %s %s: %v", c.user, c.verb, c.what, got)
		}
	}
}

func TestServiceAccountTokens(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: meta("ns", "p"), Spec: corev1.PodSpec{ServiceAccountName: "sa", NodeName: "n"}}
	w, a := build(t, &corev1.ServiceAccount{ObjectMeta: meta("ns", "sa")}, pod, &corev1.Node{ObjectMeta: meta("", "n")})
	ask := func(f func(*authenticationv1.TokenRequestSpec)) (string, error) {
		tr := &authenticationv1.TokenRequest{}
		f(&tr.Spec)
		out, err := a.ServiceAccounts.Request(context.Background(), "ns", "sa", tr)
		if err != nil {
			return "", err
		}
		return out.Status.Token, nil
	}
	token, err := ask(func(s *authenticationv1.TokenRequestSpec) {
		s.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "p"}
	})
	if err != nil {
		t.Fatal(err)
	}
	u, _, err := a.Authenticator.Token(context.Background(), token, a.Authenticator.Audiences)
	if err != nil {
		t.Fatal(err)
	}
	if u.Name != "system:serviceaccount:ns:sa" || !u.InGroup("system:serviceaccounts:ns") || u.Extra["authentication.kubernetes.io/pod-name"][0] != "p" || u.Extra["authentication.kubernetes.io/node-name"][0] != "n" {
		t.Errorf("got %+v", u)
	}
	if _, _, err := a.Authenticator.Token(context.Background(), token, []string{"vault"}); err == nil {
		t.Error("a token for the API server is good for vault")
	}
	if _, _, err := a.Authenticator.Token(context.Background(), token[:len(token)-4]+"AAAA", a.Authenticator.Audiences); err == nil {
		t.Error("a forged token is good")
	}
	for _, bad := range []func(*authenticationv1.TokenRequestSpec){
		func(s *authenticationv1.TokenRequestSpec) { s.ExpirationSeconds = ptr.To[int64](60) },
		func(s *authenticationv1.TokenRequestSpec) { s.ExpirationSeconds = ptr.To[int64](1 << 33) },
		func(s *authenticationv1.TokenRequestSpec) {
			s.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "no"}
		},
		func(s *authenticationv1.TokenRequestSpec) {
			s.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "p", UID: "other"}
		},
	} {
		if _, err := ask(bad); err == nil {
			t.Error("a bad request got a token")
		}
	}
	w.Delete(pod)
	if _, _, err := a.Authenticator.Token(context.Background(), token, a.Authenticator.Audiences); err == nil {
		t.Error("the token outlives the pod that it is bound to")
	}
	short, _ := ask(func(s *authenticationv1.TokenRequestSpec) { s.ExpirationSeconds = ptr.To[int64](600) })
	a.ServiceAccounts.Now = func() time.Time { return time.Now().Add(11 * time.Minute) }
	if _, _, err := a.Authenticator.Token(context.Background(), short, a.Authenticator.Audiences); err == nil {
		t.Error("an expired token is good")
	}
	var doc struct{ Keys []map[string]string }
	if err := json.Unmarshal(a.ServiceAccounts.Keys.JWKS(), &doc); err != nil || doc.Keys[0]["alg"] != "ES256" || doc.Keys[0]["x"] == "" {
		t.Errorf("key set: %s", a.ServiceAccounts.Keys.JWKS())
	}
}

func TestBootstrapTokens(t *testing.T) {
	secret := func(id string, more map[string]string) *corev1.Secret {
		s := &corev1.Secret{ObjectMeta: meta("kube-system", "bootstrap-token-"+id), Type: BootstrapTokenType, Data: map[string][]byte{
			"token-id": []byte(id), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true"),
		}}
		for k, v := range more {
			s.Data[k] = []byte(v)
		}
		return s
	}
	of := func(more string) *corev1.Secret { // "ID KEY=VALUE…"
		f := strings.Fields(more)
		m := map[string]string{}
		for _, pair := range f[1:] {
			k, v, _ := strings.Cut(pair, "=")
			m[k] = v
		}
		return secret(f[0], m)
	}
	other := of("othert")
	other.Type = corev1.SecretTypeOpaque
	_, a := build(t, other,
		of("plain0"),
		of("groups auth-extra-groups=system:bootstrappers:zed,system:bootstrappers:nodes"),
		of("master auth-extra-groups=system:bootstrappers:nodes,system:masters"),
		of("unused usage-bootstrap-authentication=false"),
		of("latest expiration="+time.Now().Add(time.Hour).Format(time.RFC3339)),
		of("toolat expiration="+time.Now().Add(-time.Second).Format(time.RFC3339)),
		of("nodate expiration=soon"),
	)
	for token, groups := range map[string][]string{
		"plain0.0123456789abcdef": {"system:bootstrappers", request.Authenticated},
		"groups.0123456789abcdef": {"system:bootstrappers", "system:bootstrappers:nodes", "system:bootstrappers:zed", request.Authenticated},
		"latest.0123456789abcdef": {"system:bootstrappers", request.Authenticated},
		"plain0.0123456789abcdeX": nil, "plain0.0123456789abcde0": nil, "absent.0123456789abcdef": nil,
		"master.0123456789abcdef": nil, "unused.0123456789abcdef": nil, "toolat.0123456789abcdef": nil, "nodate.0123456789abcdef": nil,
		"othert.0123456789abcdef": nil,
	} {
		u, auds, err := a.Authenticator.Token(context.Background(), token, []string{"https://issuer", "vault"})
		if groups == nil {
			if err == nil {
				t.Errorf("%s is good: %+v", token, u)
			}
			continue
		}
		if err != nil || u.Name != "system:bootstrap:"+token[:6] || !slices.Equal(u.Groups, groups) || !slices.Equal(auds, []string{"https://issuer"}) {
			t.Errorf("%s: got %+v for %v, %v", token, u, auds, err)
		}
	}
	if _, _, err := a.Authenticator.Token(context.Background(), "plain0.0123456789abcdef", []string{"vault"}); err == nil {
		t.Error("a token for joining is good for vault")
	}
}

func TestCertificates(t *testing.T) {
	now := time.Now()
	caKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, _ := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	caCert, _ := x509.ParseCertificate(caDER)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "ann", Organization: []string{"ops"}}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Minute), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, _ := x509.CreateCertificate(rand.Reader, leaf, caCert, key.Public(), caKey)
	cert, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(caCert)
	c := NewCertificates(func() *x509.CertPool { return pool })
	m := metrics.New("")
	c.left = m.CertificateExpiration
	for range 2 { // the second time from memory
		u, err := c.User([]*x509.Certificate{cert})
		if err != nil || u.Name != "ann" || !reflect.DeepEqual(u.Groups, []string{"ops", request.Authenticated}) {
			t.Fatalf("got %+v, %v", u, err)
		}
	}
	c.now = func() time.Time { return now.Add(2 * time.Minute) }
	if _, err := c.User([]*x509.Certificate{cert}); err == nil {
		t.Error("an expired certificate is good")
	}
	metricstest.Expect(t, m, `apiserver_client_certificate_expiration_seconds_bucket{le="0"} 1`, `apiserver_client_certificate_expiration_seconds_bucket{le="1800"} 3`)
	pool = x509.NewCertPool()
	c.now = func() time.Time { return now }
	if _, err := c.User([]*x509.Certificate{cert}); err == nil {
		t.Error("a certificate of an authority that is no longer trusted is good")
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.TLS = &tls.ConnectionState{}
	u, err := (&Chain{Certificates: c}).Authenticate(context.Background(), r)
	if err != nil || u.Name != request.Anonymous || !u.InGroup(request.Unauthenticated) {
		t.Errorf("without credentials: %+v, %v", u, err)
	}
}

func TestImpersonate(t *testing.T) {
	_, a := build(t,
		&rbacv1.ClusterRole{ObjectMeta: meta("", "imp"), Rules: []rbacv1.PolicyRule{{Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"users"}, ResourceNames: []string{"ann"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "imp"), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "imp"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "bob"}}},
	)
	do := func(h map[string]string) (*request.User, error) {
		r := httptest.NewRequest("GET", "/", nil)
		for k, v := range h {
			r.Header.Set(k, v)
		}
		u, _, err := Impersonate(context.Background(), a.Authorizer, &request.User{Name: "bob"}, Attributes{Verb: "get", Path: "/"}, r.Header, &a.Metrics.Impersonation)
		return u, err
	}
	if u, err := do(nil); err != nil || u.Name != "bob" {
		t.Errorf("nobody else asked for: %+v, %v", u, err)
	}
	if u, err := do(map[string]string{"Impersonate-User": "ann"}); err != nil || u.Name != "ann" || !u.InGroup(request.Authenticated) {
		t.Errorf("as ann: %+v, %v", u, err)
	}
	for _, h := range []map[string]string{
		{"Impersonate-User": "root"}, {"Impersonate-User": "ann", "Impersonate-Group": request.Masters},
		{"Impersonate-User": "ann", "Impersonate-Uid": "1"}, {"Impersonate-User": "ann", "Impersonate-Extra-Scopes": "x"},
	} {
		if _, err := do(h); !apierrors.IsForbidden(err) {
			t.Errorf("%v: %v", h, err)
		}
	}
	if _, err := do(map[string]string{"Impersonate-Group": "x"}); !apierrors.IsBadRequest(err) {
		t.Errorf("a group without a user: %v", err)
	}
}

func TestReviews(t *testing.T) {
	_, a := build(t, &corev1.ServiceAccount{ObjectMeta: meta("ns", "sa")},
		&rbacv1.Role{ObjectMeta: meta("ns", "r"), Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}},
		&rbacv1.RoleBinding{ObjectMeta: meta("ns", "r"), RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "r"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}}},
	)
	ctx := request.WithUser(context.Background(), &request.User{Name: "ann", Groups: []string{"g"}})
	answer := func(o api.Object) api.Object {
		out, err := a.Reviews.Answer(ctx, "ns", o)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	ra := &authorizationv1.ResourceAttributes{Namespace: "ns", Verb: "get", Resource: "pods"}
	self := answer(&authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: ra}}).(*authorizationv1.SelfSubjectAccessReview)
	if !self.Status.Allowed || !strings.Contains(self.Status.Reason, `RBAC: allowed by RoleBinding "r/ns" of Role "r" to User "ann"`) {
		t.Errorf("got %+v", self.Status)
	}
	other := answer(&authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "bob", ResourceAttributes: ra}}).(*authorizationv1.SubjectAccessReview)
	if other.Status.Allowed {
		t.Error("bob may")
	}
	rules := answer(&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "ns"}}).(*authorizationv1.SelfSubjectRulesReview)
	if len(rules.Status.ResourceRules) != 1 {
		t.Errorf("got %+v", rules.Status)
	}
	who := answer(&authenticationv1.SelfSubjectReview{}).(*authenticationv1.SelfSubjectReview)
	if who.Status.UserInfo.Username != "ann" {
		t.Errorf("got %+v", who.Status)
	}
	bad := answer(&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: "x"}}).(*authenticationv1.TokenReview)
	if bad.Status.Authenticated || bad.Status.Error == "" {
		t.Errorf("got %+v", bad.Status)
	}
}

func TestBearerToken(t *testing.T) {
	for _, c := range []struct {
		header http.Header
		want   string
	}{
		{http.Header{"Authorization": {"Bearer abc"}}, "abc"},
		{http.Header{"Authorization": {"bearer  abc "}}, "abc"},
		{http.Header{"Authorization": {"Basic abc"}}, ""},
		{http.Header{"Upgrade": {"websocket"}, "Sec-Websocket-Protocol": {"base64url.bearer.authorization.k8s.io.YWJj, v5.channel.k8s.io"}}, "abc"},
		{http.Header{"Upgrade": {"websocket"}, "Sec-Websocket-Protocol": {"base64url.bearer.authorization.k8s.io.YWJj"}}, ""},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = c.header
		if got, _ := bearerToken(r); got != c.want {
			t.Errorf("%v: got %q", c.header, got)
		}
		if r.Header.Get("Authorization") == "Bearer abc" {
			t.Error("the token is left in the request")
		}
	}
}
