package auth

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

// allowed is an authoriser that allows what is listed, "VERB GROUP/RESOURCE[/SUB] [NAMESPACE/]NAME", and remembers what it was asked.
type allowed struct {
	list  []string
	asked []string
	users []*request.User
}

func (z *allowed) Authorize(_ context.Context, u *request.User, a Attributes) (Decision, string, error) {
	text := a.Verb + " " + a.Group + "/" + a.Resource
	if a.Subresource != "" {
		text += "/" + a.Subresource
	}
	text += " "
	if a.Namespace != "" {
		text += a.Namespace + "/"
	}
	text += a.Name
	z.asked, z.users = append(z.asked, text), append(z.users, u)
	if slices.Contains(z.list, text) {
		return Allow, "", nil
	}
	return NoOpinion, "not " + text, nil
}

func TestImpersonationModes(t *testing.T) {
	onNode := &request.User{Name: "system:serviceaccount:ns:agent", Extra: map[string][]string{"authentication.kubernetes.io/node-name": {"n1"}, "authentication.kubernetes.io/pod-name": {"p"}}}
	bob := &request.User{Name: "bob"}
	const authn = "authentication.k8s.io/"
	for _, c := range []struct {
		name       string
		by         *request.User
		headers    string // "NAME=VALUE …"
		allow      []string
		want       *request.User
		constraint string
		bad        string // part of what the client is told
	}{
		{"the node one runs on", onNode, "User=system:node:n1",
			[]string{"impersonate-on:associated-node:list /pods ns/", "impersonate:associated-node " + authn + "nodes *"},
			&request.User{Name: "system:node:n1", Groups: []string{request.Nodes, request.Authenticated}}, "impersonate:associated-node", ""},
		{"another node", onNode, "User=system:node:n2",
			[]string{"impersonate-on:associated-node:list /pods ns/", "impersonate:associated-node " + authn + "nodes *"},
			nil, "", `cannot impersonate-on:arbitrary-node:list resource "pods"`},
		{"any node", bob, "User=system:node:n2",
			[]string{"impersonate-on:arbitrary-node:list /pods ns/", "impersonate:arbitrary-node " + authn + "nodes n2"},
			&request.User{Name: "system:node:n2", Groups: []string{request.Nodes, request.Authenticated}}, "impersonate:arbitrary-node", ""},
		{"a node, but not to list pods", bob, "User=system:node:n2", []string{"impersonate:arbitrary-node " + authn + "nodes n2"}, nil, "", `User "bob" cannot impersonate-on:arbitrary-node:list resource "pods" in API group "" in the namespace "ns"`},
		{"a node the plain way", bob, "User=system:node:n2", []string{"impersonate /users system:node:n2"},
			&request.User{Name: "system:node:n2", Groups: []string{request.Authenticated}}, "", ""},
		{"a service account", bob, "User=system:serviceaccount:a:b",
			[]string{"impersonate-on:serviceaccount:list /pods ns/", "impersonate:serviceaccount " + authn + "serviceaccounts a/b"},
			&request.User{Name: "system:serviceaccount:a:b", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:a", request.Authenticated}}, "impersonate:serviceaccount", ""},
		{"a service account with groups is plain", bob, "User=system:serviceaccount:a:b Group=g",
			[]string{"impersonate /serviceaccounts a/b", "impersonate /groups g"},
			&request.User{Name: "system:serviceaccount:a:b", Groups: []string{"g", request.Authenticated}}, "", ""},
		{"a user with everything", bob, "User=ann Group=g Group=h Uid=7 Extra-Example.org%2fteam=blue",
			[]string{"impersonate-on:user-info:list /pods ns/", "impersonate:user-info " + authn + "users ann", "impersonate:user-info " + authn + "groups g", "impersonate:user-info " + authn + "groups h",
				"impersonate:user-info " + authn + "uids 7", "impersonate:user-info " + authn + "userextras/example.org/team blue"},
			&request.User{Name: "ann", UID: "7", Groups: []string{"g", "h", request.Authenticated}, Extra: map[string][]string{"example.org/team": {"blue"}}}, "impersonate:user-info", ""},
		{"a user with everything, the plain way", bob, "User=ann Group=g Uid=7 Extra-Scopes=x",
			[]string{"impersonate /users ann", "impersonate /groups g", "impersonate " + authn + "uids 7", "impersonate " + authn + "userextras/scopes x"},
			&request.User{Name: "ann", UID: "7", Groups: []string{"g", request.Authenticated}, Extra: map[string][]string{"scopes": {"x"}}}, "", ""},
		{"many groups at once", bob, "User=ann Group=1 Group=2 Group=3 Group=4",
			[]string{"impersonate-on:user-info:list /pods ns/", "impersonate:user-info " + authn + "users ann", "impersonate:user-info " + authn + "groups *"},
			&request.User{Name: "ann", Groups: []string{"1", "2", "3", "4", request.Authenticated}}, "impersonate:user-info", ""},
		{"masters are never constrained", bob, "User=ann Group=" + request.Masters,
			[]string{"impersonate-on:user-info:list /pods ns/", "impersonate:user-info " + authn + "users ann", "impersonate:user-info " + authn + "groups " + request.Masters},
			nil, "", "impersonating the system:masters group is not allowed"},
		{"masters the plain way", bob, "User=ann Group=" + request.Masters, []string{"impersonate /users ann", "impersonate /groups " + request.Masters},
			&request.User{Name: "ann", Groups: []string{request.Masters, request.Authenticated}}, "", ""},
		{"extras that are no names", bob, "User=ann Extra-Scopes=x",
			[]string{"impersonate-on:user-info:list /pods ns/", "impersonate:user-info " + authn + "users ann", "impersonate:user-info " + authn + "userextras/scopes x"},
			nil, "", "impersonating an invalid key in extra is not allowed"},
		{"nobody", bob, "User=" + request.Anonymous, []string{"impersonate /users " + request.Anonymous},
			&request.User{Name: request.Anonymous, Groups: []string{request.Unauthenticated}}, "", ""},
		{"somebody unknown", bob, "User=ann Group=" + request.Unauthenticated, []string{"impersonate /users ann", "impersonate /groups " + request.Unauthenticated},
			&request.User{Name: "ann", Groups: []string{request.Unauthenticated}}, "", ""},
		{"not at all", bob, "User=ann", nil, nil, "", `User "bob" cannot impersonate-on:user-info:list resource "pods" in API group "" in the namespace "ns": not impersonate-on`},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := http.Header{"Accept": {"*/*"}}
			for _, pair := range strings.Fields(c.headers) {
				name, value, _ := strings.Cut(pair, "=")
				h["Impersonate-"+name] = append(h["Impersonate-"+name], value)
			}
			z := &allowed{list: c.allow}
			u, constraint, err := Impersonate(context.Background(), z, c.by, Attributes{Verb: "list", Resource: "pods", Namespace: "ns", IsResource: true}, h, &metrics.New("").Impersonation)
			if c.want == nil {
				if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), c.bad) {
					t.Errorf("got %+v, %v\nasked %q", u, err, z.asked)
				}
				return
			}
			if err != nil || constraint != c.constraint || !reflect.DeepEqual(u, c.want) {
				t.Errorf("got %+v by %q, %v\nasked %q", u, constraint, err, z.asked)
			}
			if len(h) != 1 {
				t.Errorf("headers that go on: %v", h)
			}
			if c.constraint == "impersonate:associated-node" { // the same for all nodes
				want := map[string][]string{"authentication.kubernetes.io/associated-node-keys": {"authentication.kubernetes.io/node-name", "authentication.kubernetes.io/pod-name"}}
				for n := range z.asked {
					if strings.Contains(z.asked[n], "associated-node") && !reflect.DeepEqual(z.users[n].Extra, want) {
						t.Errorf("%s was asked about %v", z.asked[n], z.users[n].Extra)
					}
				}
			}
		})
	}
	for _, headers := range []http.Header{{"Impersonate-Group": {"g"}}, {"Impersonate-Uid": {"1"}}, {"Impersonate-Extra-X": {"y"}}} {
		if _, _, err := Impersonate(context.Background(), &allowed{}, bob, Attributes{}, headers, &metrics.New("").Impersonation); !apierrors.IsBadRequest(err) {
			t.Errorf("%v: %v", headers, err)
		}
	}
}
