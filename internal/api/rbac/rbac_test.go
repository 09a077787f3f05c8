package rbac

import (
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func text(errs field.ErrorList) string {
	var all []string
	for _, e := range errs {
		all = append(all, e.Error())
	}
	return strings.Join(all, "\n")
}

func TestRules(t *testing.T) {
	for _, c := range []struct {
		rule    rbacv1.PolicyRule
		cluster bool
		want    string
	}{
		{rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}, false, ""},
		{rbacv1.PolicyRule{}, false, "rules[0].verbs: Required value: verbs must contain at least one value\n" +
			"rules[0].apiGroups: Required value: resource rules must supply at least one api group\n" +
			"rules[0].resources: Required value: resource rules must supply at least one resource"},
		{rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}, true, ""},
		{rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}, false,
			`rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs`},
	} {
		var got string
		if c.cluster {
			got = text(clusterRole().Validate(&rbacv1.ClusterRole{Rules: []rbacv1.PolicyRule{c.rule}}, nil, ""))
		} else {
			got = text(role().Validate(&rbacv1.Role{Rules: []rbacv1.PolicyRule{c.rule}}, nil, ""))
		}
		if got != c.want {
			t.Errorf("\n got %s\nwant %s", got, c.want)
		}
	}
}

func TestBindings(t *testing.T) {
	k := clusterRoleBinding()
	b := &rbacv1.ClusterRoleBinding{RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "system:node"},
		Subjects: []rbacv1.Subject{{Kind: "User", Name: "u"}, {Kind: "Group", Name: "g"}, {Kind: "ServiceAccount", Name: "s", Namespace: "n"}}}
	k.Default(b)
	if got := text(k.Validate(b, nil, "")); got != "" {
		t.Error(got)
	}
	if row := k.Row(b); row[1] != "ClusterRole/system:node" || row[3] != "u" || row[4] != "g" || row[5] != "n/s" {
		t.Errorf("%v", row)
	}
	other := b.DeepCopy()
	other.RoleRef.Name = "x"
	if got := text(k.Validate(other, b, "")); !strings.Contains(got, "cannot change roleRef") {
		t.Error(got)
	}
	b.Subjects = []rbacv1.Subject{{Kind: "ServiceAccount", Name: "s"}, {Kind: "Robot", Name: "r"}}
	want := "subjects[0].namespace: Required value\n" +
		`subjects[1].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group"`
	if got := text(k.Validate(b, nil, "")); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if !k.CreateOnUpdate || k.ValidName("system:node", false) != nil || k.ValidName("a/b", false) == nil {
		t.Error("names or creation by update")
	}
}
