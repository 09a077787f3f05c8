package inprocess

import (
	"context"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/api/kinds"
)

// TestNothingIsSpent where nothing is written down.
func TestNothingIsSpent(t *testing.T) {
	k, _ := kinds.Catalog().Type(&corev1.Pod{})
	u := &User{}
	q := u.request(k, "ns", "p", "status", "m", true)
	ctx := context.Background()
	if n := testing.AllocsPerRun(100, func() {
		_, c, err := u.begin(ctx, http.MethodPut, q, u.selecting(nil, "spec.nodeName", "n"))
		defer c.panics()
		if c != nil || err != nil {
			t.Fatal(c, err)
		}
		c.sent(nil)
		c.sentPatch(nil)
		c.item(http.StatusOK, nil, nil)
		c.failed(nil) //nolint:errcheck // there is none
	}); n != 0 {
		t.Errorf("a call takes memory %v times for a log that is not there", n)
	}
}

// TestPaths are those by which the same would be asked for over HTTP.
func TestPaths(t *testing.T) {
	all, u := kinds.Catalog(), &User{}
	for _, c := range []struct{ group, resource, namespace, name, sub, method, want string }{
		{"", "pods", "ns", "p", "", http.MethodPost, "/api/v1/namespaces/ns/pods"},
		{"", "pods", "ns", "p", "binding", http.MethodPost, "/api/v1/namespaces/ns/pods/p/binding"},
		{"", "pods", "", "", "", http.MethodGet, "/api/v1/pods"},
		{"", "nodes", "", "n", "status", http.MethodPatch, "/api/v1/nodes/n/status"},
		{"", "namespaces", "", "ns", "finalize", http.MethodPut, "/api/v1/namespaces/ns/finalize"},
		{"apps", "deployments", "ns", "d", "", http.MethodDelete, "/apis/apps/v1/namespaces/ns/deployments/d"},
	} {
		for _, k := range all.All() {
			if k.Group == c.group && k.Resource == c.resource {
				if got := pathOf(c.method, u.request(k, c.namespace, c.name, c.sub, "", false)); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
			}
		}
	}
}
