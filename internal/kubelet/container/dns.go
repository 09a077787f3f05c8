package container

import (
	"bufio"
	"os"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits of glibc on resolv.conf.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

// DNS of a pod from its policy and config. A pod on the node's network gets the
// node's, unless it asks for ClusterFirstWithHostNet.
func DNS(pod *v1.Pod, n *Node) (*cri.DNSConfig, error) {
	host, err := readResolv(n.ResolvConf)
	if err != nil {
		return nil, err
	}
	d := &cri.DNSConfig{}
	policy := pod.Spec.DNSPolicy
	if policy == v1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = v1.DNSDefault
	}
	switch policy {
	case v1.DNSNone:
	case v1.DNSDefault:
		d = host
	default:
		if len(n.ClusterDNS) == 0 {
			d = host
			break
		}
		d.Servers = n.ClusterDNS
		if n.ClusterDomain != "" {
			d.Searches = []string{pod.Namespace + ".svc." + n.ClusterDomain, "svc." + n.ClusterDomain, n.ClusterDomain}
		}
		d.Searches = append(d.Searches, host.Searches...)
		d.Options = []string{"ndots:5"}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		d.Servers = append(slices.Clone(d.Servers), c.Nameservers...)
		d.Searches = append(slices.Clone(d.Searches), c.Searches...)
		for _, o := range c.Options {
			d.Options = slices.DeleteFunc(slices.Clone(d.Options), func(have string) bool {
				name, _, _ := strings.Cut(have, ":")
				return name == o.Name
			})
			if o.Value != nil && *o.Value != "" {
				d.Options = append(d.Options, o.Name+":"+*o.Value)
			} else {
				d.Options = append(d.Options, o.Name)
			}
		}
	}
	d.Servers, d.Searches = unique(d.Servers), unique(d.Searches)
	d.Servers = d.Servers[:min(len(d.Servers), maxNameservers)]
	d.Searches = d.Searches[:min(len(d.Searches), maxSearches)]
	for len(strings.Join(d.Searches, " ")) > maxSearchChars {
		d.Searches = d.Searches[:len(d.Searches)-1]
	}
	return d, nil
}

func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func readResolv(path string) (*cri.DNSConfig, error) {
	d := &cri.DNSConfig{}
	if path == "" {
		return d, nil
	}
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			d.Servers = append(d.Servers, words[1])
		case "search", "domain":
			d.Searches = nil
			for _, w := range words[1:] {
				if w != "." {
					w = strings.TrimSuffix(w, ".")
				}
				d.Searches = append(d.Searches, w)
			}
		case "options":
			d.Options = append(d.Options, words[1:]...)
		}
	}
	return d, lines.Err()
}

// Hostname a pod gives itself, and its domain in the cluster ("" = none).
func Hostname(pod *v1.Pod, n *Node) (host, domain string) {
	host = pod.Name
	if pod.Spec.Hostname != "" {
		host = pod.Spec.Hostname
	}
	if pod.Spec.Subdomain != "" {
		domain = pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + n.ClusterDomain
	}
	host = host[:min(len(host), 63)]
	host = strings.TrimRight(host, "-.")
	if pod.Spec.HostnameOverride != nil {
		return *pod.Spec.HostnameOverride, ""
	}
	return host, domain
}
