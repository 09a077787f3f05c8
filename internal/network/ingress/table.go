package ingress

import (
	"cmp"
	"net"
	"slices"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Table is everything the server serves.
type Table struct {
	// Hosts holds the rules by host: "shop.example.com", "*.example.com", or ""
	// for every host. Rules are sorted: the first that matches is it.
	Hosts    map[string][]Rule
	Backends map[BackendKey]Backend
	// Certificates by host, in Hosts' notation.
	Certificates map[string]KeyPair
	// Served are the Ingresses in the table, by name.
	Served []types.NamespacedName
	// Problems are what keeps an Ingress from being served as written.
	Problems []Problem
}

// Rule leads a path to a backend.
type Rule struct {
	Path    string
	Exact   bool
	Default bool // of spec.defaultBackend: after all others
	To      BackendKey
	Ingress types.NamespacedName
	Options Options
	age     int // the older Ingress wins a path two ask for
}

// Options of an Ingress that hold for its rules.
type Options struct {
	ForceHTTPS bool
	Timeout    time.Duration // 0 = none
}

// BackendKey names a port of a Service.
type BackendKey struct {
	Namespace, Service string
	Port               networkingv1.ServiceBackendPort
	Protocol           Protocol // that the Ingress asks for, "" = the Service's
}

// Backend is where requests for a port of a Service go.
type Backend struct {
	Protocol Protocol
	// Endpoints are "address:port", sorted.
	Endpoints []string
	// External says that the endpoint is a name outside (an ExternalName): it may
	// lead anywhere but to this machine.
	External bool
	// Fault says why there is nothing to send to, in words for a person.
	Fault string
}

// Protocol that endpoints speak.
type Protocol string

// The protocols.
const (
	HTTP  Protocol = "http"
	HTTPS Protocol = "https"
	H2C   Protocol = "h2c"
)

// KeyPair is a certificate and its key, PEM.
type KeyPair struct{ Cert, Key string }

// Problem of an Ingress.
type Problem struct {
	Ingress types.NamespacedName
	Message string
}

// Find the rule for a request. An exact host goes before a wildcard and that
// before any host; among paths the longest, exact before prefix.
func (t *Table) Find(host, path string) (*Rule, bool) {
	var fallback *Rule
	for _, h := range hostKeys(host) {
		rules := t.Hosts[h]
		for i := range rules {
			if !rules[i].matches(path) {
				continue
			}
			if !rules[i].Default {
				return &rules[i], true
			}
			if fallback == nil {
				fallback = &rules[i]
			}
		}
	}
	return fallback, fallback != nil
}

// Certificate for a name a client asks for.
func (t *Table) Certificate(name string) (KeyPair, bool) {
	for _, h := range hostKeys(name) {
		if c, ok := t.Certificates[h]; ok {
			return c, true
		}
	}
	return KeyPair{}, false
}

// hostKeys are the keys a host may be found under, best first.
func hostKeys(host string) [3]string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	keys := [3]string{host, "", ""}
	if _, parent, ok := strings.Cut(host, "."); ok {
		keys[1] = "*." + parent
	}
	return keys
}

func (r *Rule) matches(path string) bool {
	if r.Exact {
		return path == r.Path
	}
	// A prefix of whole elements: /foo matches /foo and /foo/bar, not /foobar.
	p := strings.TrimSuffix(r.Path, "/")
	return strings.HasPrefix(path, p) && (len(path) == len(p) || path[len(p)] == '/')
}

func sortRules(rules []Rule) {
	last := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(rules, func(a, b Rule) int {
		return cmp.Or(
			cmp.Compare(last(a.Default), last(b.Default)),
			cmp.Compare(len(b.Path), len(a.Path)),
			cmp.Compare(last(!a.Exact), last(!b.Exact)),
			cmp.Compare(a.age, b.age))
	})
}
