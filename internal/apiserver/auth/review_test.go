package auth

import (
	"context"
	"errors"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// told is an authoriser that says what it is told to, and remembers the question.
type told struct {
	decision Decision
	why      string
	err      error
	asked    Attributes
}

func (z *told) Authorize(_ context.Context, _ *request.User, a Attributes) (Decision, string, error) {
	z.asked = a
	return z.decision, z.why, z.err
}

func TestReviewedSelectors(t *testing.T) {
	in := func(key string, values ...string) metav1.LabelSelectorRequirement {
		return metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpIn, Values: values}
	}
	field := func(key string, op metav1.FieldSelectorOperator, values ...string) metav1.FieldSelectorRequirement {
		return metav1.FieldSelectorRequirement{Key: key, Operator: op, Values: values}
	}
	for _, c := range []struct {
		name           string
		fields         *authorizationv1.FieldSelectorAttributes
		labels         *authorizationv1.LabelSelectorAttributes
		field, label   string
		evaluationSays string
	}{
		{"none", nil, nil, "", "", ""},
		{"as text", &authorizationv1.FieldSelectorAttributes{RawSelector: "a=b"}, &authorizationv1.LabelSelectorAttributes{RawSelector: "a in (b)"}, "a=b", "a in (b)", ""},
		{"as bad text", &authorizationv1.FieldSelectorAttributes{RawSelector: "a"}, &authorizationv1.LabelSelectorAttributes{RawSelector: "a in"}, "", "",
			"spec.resourceAttributes.fieldSelector ignored due to parse error; spec.resourceAttributes.labelSelector ignored due to parse error"},
		{"as requirements", &authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{field("a", "In", "b,c"), field("d", "NotIn", "e")}},
			&authorizationv1.LabelSelectorAttributes{Requirements: []metav1.LabelSelectorRequirement{in("a", "b", "c"), {Key: "d", Operator: "DoesNotExist"}}}, `a=b\,c,d!=e`, "a in (b,c),!d", ""},
		{"as requirements from the future", &authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{field("a", "In", "b"), field("c", "Like", "d")}},
			&authorizationv1.LabelSelectorAttributes{Requirements: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}}, "a=b", "",
			"spec.resourceAttributes.fieldSelector partially ignored due to parse error; spec.resourceAttributes.labelSelector ignored due to parse error"},
	} {
		z := &told{decision: Allow, why: "so"}
		out, err := (&Reviews{Authorizer: z}).Answer(context.Background(), "", &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "ann", ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "list", Resource: "pods", FieldSelector: c.fields, LabelSelector: c.labels},
		}})
		if err != nil {
			t.Fatal(err)
		}
		s := out.(*authorizationv1.SubjectAccessReview).Status
		if z.asked.FieldSelector != c.field || z.asked.LabelSelector != c.label || z.asked.Version != "*" || s.EvaluationError != c.evaluationSays || !s.Allowed || s.Reason != "so" {
			t.Errorf("%s: asked %+v, answered %+v", c.name, z.asked, s)
		}
	}
	if a := (&Attributes{FieldSelector: `a=b\,c`}).Fields(); len(a) != 1 || a[0].Values[0] != "b,c" {
		t.Errorf("taken apart again: %+v", a)
	}
}

func TestUnion(t *testing.T) {
	no, yes, never := &told{why: "no"}, &told{decision: Allow, why: "yes"}, &told{decision: Deny, why: "never"}
	failed := &told{err: errors.New("down"), why: "?"}
	for _, c := range []struct {
		list     First
		want     Decision
		why, err string
	}{
		{First{no, yes, never}, Allow, "yes", ""},
		{First{no, never, yes}, Deny, "never", ""},
		{First{no, failed, yes}, Allow, "yes", ""}, // who cannot be asked has no opinion
		{First{no, failed, no}, NoOpinion, "no\n?\nno", "down"},
		{First{}, NoOpinion, "", ""},
	} {
		d, why, err := c.list.Authorize(context.Background(), &request.User{}, Attributes{})
		if d != c.want || why != c.why || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%v: %v, %q, %v", c.list, d, why, err)
		}
	}
	s := &Switch{}
	if d, _, err := s.Authorize(context.Background(), &request.User{Groups: []string{request.Masters}}, Attributes{}); d == Allow || err == nil {
		t.Error("nobody decides, and somebody may")
	}
	s.Set(First{never})
	if d, _, _ := s.Authorize(context.Background(), &request.User{Groups: []string{request.Masters}}, Attributes{}); d != Allow {
		t.Error("system:masters may not")
	}
}

func TestRulesReview(t *testing.T) {
	_, a := build(t)
	for user, want := range map[*request.User]bool{
		{Name: "ann"}: false, {Name: "system:node:n", Groups: []string{request.Nodes}}: true,
	} {
		out, err := a.Reviews.Answer(request.WithUser(context.Background(), user), "", &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "ns"}})
		if err != nil {
			t.Fatal(err)
		}
		if s := out.(*authorizationv1.SelfSubjectRulesReview).Status; s.Incomplete != want || (s.EvaluationError != "") != want {
			t.Errorf("%s: %+v", user.Name, s)
		}
	}
}

func TestTokenReview(t *testing.T) {
	_, a := build(t, &corev1.ServiceAccount{ObjectMeta: meta("ns", "sa")})
	out, err := a.ServiceAccounts.Request(context.Background(), "ns", "sa", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"vault", "https://issuer"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		auds, want []string
	}{{nil, []string{"https://issuer"}}, {[]string{"vault", "x"}, []string{"vault"}}, {[]string{"x"}, nil}} {
		got, err := a.Reviews.Answer(context.Background(), "", &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: out.Status.Token, Audiences: c.auds}})
		if err != nil {
			t.Fatal(err)
		}
		s := got.(*authenticationv1.TokenReview).Status
		if s.Authenticated != (c.want != nil) || len(s.Audiences) != len(c.want) || c.want != nil && s.Audiences[0] != c.want[0] {
			t.Errorf("for %v: %+v", c.auds, s)
		}
	}
	if _, err := a.Reviews.Answer(context.Background(), "", &authenticationv1.TokenReview{}); !apierrors.IsBadRequest(err) {
		t.Errorf("without a token: %v", err)
	}
}
