// Package plugin finds the drivers of a node: programs, mostly in pods, that
// listen on a socket in ROOT/plugins_registry and say there what they are. Their
// handlers, one for each type, are told when one comes and goes.
package plugin

import (
	"path/filepath"
	"strings"
)

// Public is the name of the kubelet's folder in the manifests of drivers.
const Public = "/var/lib/kubelet"

// Root is the kubelet's folder on the machine. Several nodes may be on one, each
// with its own; in their pods, a hostPath in Public means that of their node.
type Root string

// Real is where a path in Public lies; other paths are what they are.
func (r Root) Real(path string) string { return swap(path, Public, string(r)) }

// Known is a path below Root as the driver with an endpoint knows it: a driver
// that says that its socket is in Public has the folder under that name.
func (r Root) Known(path, endpoint string) string {
	if !within(endpoint, Public) || within(endpoint, string(r)) {
		return path
	}
	return swap(path, string(r), Public)
}

// Join the root with parts of a path.
func (r Root) Join(parts ...string) string {
	return filepath.Join(append([]string{string(r)}, parts...)...)
}

func swap(path, from, to string) string {
	if clean := filepath.Clean(path); from != to && within(clean, from) {
		return to + clean[len(from):]
	}
	return path
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
