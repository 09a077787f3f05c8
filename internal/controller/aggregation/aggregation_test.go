package aggregation_test

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/aggregation"
	"github.com/proa-dev/proa/test/controllertest"
)

func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Run(aggregation.New(c.Informers, c.Shaky, controllertest.Log()))
	role := func(name, verb string) *rbacv1.ClusterRole {
		return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"to": "all"}}, Rules: []rbacv1.PolicyRule{
			{Verbs: []string{verb}, APIGroups: []string{""}, Resources: []string{"pods"}},
		}}
	}
	controllertest.Create(c, role("b", "list"))
	controllertest.Create(c, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "all"}, AggregationRule: &rbacv1.AggregationRule{
		ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"to": "all"}}},
	}})
	controllertest.Create(c, role("a", "get"))
	controllertest.Create(c, role("again", "get"))
	verbs := func(want ...string) func() bool {
		return func() bool {
			rules := controllertest.Get[*rbacv1.ClusterRole](c, "", "all").Rules
			if len(rules) != len(want) {
				return false
			}
			for i := range want {
				if rules[i].Verbs[0] != want[i] {
					return false
				}
			}
			return true
		}
	}
	c.Until("both verbs, once each", verbs("get", "list"))
	if err := client.For[*rbacv1.ClusterRole](c.Conn).Delete(t.Context(), "", "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.Until("one verb", verbs("get"))
}
