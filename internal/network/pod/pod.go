// Package pod connects pods: it writes the CNI configuration the runtime reads,
// and keeps the routes between nodes, the masquerade of what leaves the pod
// network, and the sysctls both need.
//
//	Decide (decide.go)  Nodes -> Desired; pure
//	plan   (decide.go)  Desired + the host's links -> routes and overlay; pure
//	Driver (driver.go)  Set writes the difference, Down removes everything
//	Run    (run.go)     watches Nodes
//
// A pod hangs on a veth pair of its own, which the CNI plugin proa-cni makes (cni/,
// with addresses from ipam/): one short process a pod, no bridge, and hairpin is
// plain routing. Host ports are the service proxy's, so portmap is not needed. It
// is a plugin as any other: with a configuration before ours in the folder, another
// network takes our place.
// Nodes on one link reach each other by plain routes; the others by VXLAN,
// whose device addresses follow from the node's name, so nothing has to be
// exchanged.
package pod

import (
	"encoding/json"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// Desired is the pod network as one node has to make it.
type Desired struct {
	PodCIDRs []netip.Prefix // of this node; empty = not given one yet
	Addrs    []netip.Addr   // of this node
	Peers    []Peer         // by name
}

// Peer is another node.
type Peer struct {
	Name     string
	PodCIDRs []netip.Prefix
	Addrs    []netip.Addr // internal addresses
}

// Conflist is the CNI network configuration list for pods of these ranges.
// dataDir is where addresses given out are noted; one per node.
func Conflist(name string, cidrs []netip.Prefix, dataDir string, mtu int) []byte {
	list := map[string]any{
		"cniVersion": "1.0.0",
		"name":       name,
		"plugins":    []any{map[string]any{"type": "proa-cni", "mtu": mtu, "dataDir": dataDir, "subnets": cidrs}},
	}
	out, _ := json.MarshalIndent(list, "", "  ") // of plain values: cannot fail
	return append(out, '\n')
}

// PodCIDRs of a node.
func PodCIDRs(node *corev1.Node) []netip.Prefix {
	all := node.Spec.PodCIDRs
	if len(all) == 0 && node.Spec.PodCIDR != "" {
		all = []string{node.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, s := range all {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}
