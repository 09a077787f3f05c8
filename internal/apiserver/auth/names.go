package auth

import (
	"strings"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

const serviceAccountPrefix = "system:serviceaccount:"

// ServiceAccountName is the user name of a service account.
func ServiceAccountName(namespace, name string) string {
	return serviceAccountPrefix + namespace + ":" + name
}

// ServiceAccountGroups are those that every service account of a namespace is in.
func ServiceAccountGroups(namespace string) []string {
	return []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace}
}

// ServiceAccountOf reads a service account's user name.
func ServiceAccountOf(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, serviceAccountPrefix)
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, ":")
}

// NodeOf returns the node that a user is the kubelet of.
func NodeOf(u *request.User) (name string, ok bool) {
	if u == nil || !u.InGroup(request.Nodes) {
		return "", false
	}
	name, ok = strings.CutPrefix(u.Name, "system:node:")
	return name, ok && name != ""
}
