package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
)

const hostsHeader = "# Kubernetes-managed hosts file.\n"

// Hosts is the content of a pod's /etc/hosts.
func Hosts(pod *v1.Pod, n *Node, podIPs []string) ([]byte, error) {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		host, err := os.ReadFile("/etc/hosts")
		if err != nil {
			return nil, err
		}
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(host)
	} else {
		b.WriteString(hostsHeader)
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
		b.WriteString("fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		host, domain := Hostname(pod, n)
		for _, ip := range podIPs {
			if domain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, host, domain, host)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, host)
			}
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	return []byte(b.String()), nil
}

// hostsMount writes /etc/hosts for a container that does not mount one of its own.
func (in *Input) hostsMount() (path string, err error) {
	for _, m := range in.Container.VolumeMounts {
		if m.MountPath == "/etc/hosts" {
			return "", nil
		}
	}
	if len(in.PodIPs) == 0 && !in.Pod.Spec.HostNetwork {
		return "", nil
	}
	content, err := Hosts(in.Pod, in.Node, in.PodIPs)
	if err != nil {
		return "", err
	}
	path = filepath.Join(in.PodDir, "etc-hosts")
	return path, os.WriteFile(path, content, 0o644)
}
