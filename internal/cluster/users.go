package cluster

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/inprocess"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/local"
)

// self is this server as a user of its own.
func (s *server) self() *inprocess.User {
	return s.within(userOf("system:apiserver", request.Masters))
}

// within is a user whose calls stay in this process.
func (s *server) within(u *request.User) *inprocess.User {
	return &inprocess.User{
		Verbs: s.api.Verbs(), User: u,
		Audit: s.audit, Agent: programOf(u) + "/" + kubernetesVersion.GitVersion + " (" + kubernetesVersion.Platform + ")",
	}
}

// as is a connection in the name of a user, by calls in this process.
func (s *server) as(name string, groups ...string) client.Conn {
	u := userOf(name, groups...)
	return local.New(local.Config{Server: s.within(u), Cache: s.cache, Catalog: s.catalog, Manager: programOf(u)})
}

// account is a connection in the name under which a part of the control plane acts:
// controllers have service accounts in kube-system.
func (s *server) account(part string) client.Conn {
	switch part {
	case "apiserver":
		return s.as("system:apiserver", request.Masters)
	case "kube-scheduler":
		return s.as("system:kube-scheduler")
	}
	return s.as(auth.ServiceAccountName(metav1.NamespaceSystem, part))
}

// userOf a name: in the groups that follow from it, and in others.
func userOf(name string, groups ...string) *request.User {
	if namespace, _, ok := auth.ServiceAccountOf(name); ok {
		groups = append(groups, auth.ServiceAccountGroups(namespace)...)
	}
	return &request.User{Name: name, Groups: append(groups, request.Authenticated)}
}

// programOf a user is what it would call itself over HTTP, as managed fields and the
// audit log have it.
func programOf(u *request.User) string {
	switch {
	case u.Name == "system:apiserver":
		return "kube-apiserver"
	case strings.HasPrefix(u.Name, "system:serviceaccount:"):
		return "kube-controller-manager"
	case u.InGroup(request.Nodes):
		return "kubelet"
	case u.InGroup(auth.NetworkGroup):
		return "proa-network"
	}
	return u.Name[strings.LastIndexByte(u.Name, ':')+1:]
}
