package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cluster/pki"
	"github.com/proa-dev/proa/internal/cluster/registry"
)

// Paths that a node joins by, beside the Kubernetes API and on its port.
const (
	certificatePath = "/proa/v1/certificate"
	paramsPath      = "/proa/v1/cluster"
)

// Params of a cluster that its nodes must know.
type Params struct {
	Name          string         `json:"name"`
	Authority     string         `json:"authority"` // PEM
	ServiceCIDRs  []netip.Prefix `json:"serviceCIDRs"`
	ClusterCIDRs  []netip.Prefix `json:"clusterCIDRs"`
	NodePorts     PortRange      `json:"nodePorts"`
	ClusterDomain string         `json:"clusterDomain"`
	ClusterDNS    netip.Addr     `json:"clusterDNS"`
	DNSPort       int            `json:"dnsPort"`
}

// certificateRequest of a node: for its kubelet as a client ("system:node:NAME"),
// for what serves its network as a client ("system:proa:network:NAME", which may
// read Services but not what the node's pods refer to), or for serving on its
// addresses.
type certificateRequest struct {
	Node    string       `json:"node"`
	Network bool         `json:"network"`
	Serving bool         `json:"serving"`
	IPs     []netip.Addr `json:"ips"`
	Request string       `json:"request"` // PEM
}

// edge is what Proa serves beside the Kubernetes API, on its port and with its
// authentication and authorisation (nodeAccess says what nodes may): joining a
// cluster, its images, and snapshots.
type edge struct {
	ca     *pki.Authority
	params Params
	images *registry.Manager
	store  *storage
}

func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u := request.UserFrom(r.Context())
	switch r.URL.Path {
	case paramsPath:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(e.params)
	case certificatePath:
		e.certificate(w, r, nodeOf(u))
	case registry.FollowPath:
		e.images.Follow(w, r, nodeOf(u))
	case registry.HasPath:
		version, _ := strconv.ParseInt(r.URL.Query().Get("version"), 10, 64)
		e.images.Has(nodeOf(u), version)
	case registry.ImagesPath:
		e.manage(w, r)
	case snapshotPath:
		e.store.serveSnapshot(w, r)
	default:
		http.NotFound(w, r)
	}
}

// nodeOf a user: its name if it is a node, "" if it is not.
func nodeOf(u *request.User) string {
	if name, ok := strings.CutPrefix(u.Name, "system:node:"); ok && u.InGroup(request.Nodes) {
		return name
	}
	return ""
}

func (e *edge) manage(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		e.images.List(w, r)
	case http.MethodPost:
		e.images.Import(w, r)
	case http.MethodDelete:
		e.images.Remove(w, r)
	default:
		http.Error(w, "GET lists, POST imports, DELETE removes", http.StatusMethodNotAllowed)
	}
}

// certificate signs a request of a node for itself, or of one that joins (then
// node is "").
func (e *edge) certificate(w http.ResponseWriter, r *http.Request, node string) {
	var c certificateRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&c); err != nil {
		http.Error(w, "not a certificate request: "+err.Error(), http.StatusBadRequest)
		return
	}
	if c.Node == "" || node != "" && c.Node != node {
		http.Error(w, "a node can have certificates for itself alone", http.StatusForbidden)
		return
	}
	if err := c.check(e.params.ServiceCIDRs); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	crt, err := e.ca.SignRequest([]byte(c.Request), c.profile())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	w.Write(crt)
}

// check that a certificate could not be mistaken for the API server's, which the
// same authority signs.
func (c *certificateRequest) check(services []netip.Prefix) error {
	if why := validation.IsDNS1123Subdomain(c.Node); len(why) > 0 {
		return fmt.Errorf("node name %q: %s", c.Node, why[0])
	}
	if c.Serving && (c.Node == "localhost" || c.Node == "kubernetes" || strings.HasPrefix(c.Node, "kubernetes.default")) {
		return fmt.Errorf("%q is the API server's name: call the node something else", c.Node)
	}
	for _, ip := range c.IPs {
		for _, s := range services {
			if s.Contains(ip) {
				return fmt.Errorf("%s is an address of Services, not of a node", ip)
			}
		}
	}
	return nil
}

func (c *certificateRequest) profile() pki.Profile {
	switch {
	case c.Serving:
		p := pki.Profile{CommonName: "system:node:" + c.Node, Organization: []string{request.Nodes}, Server: true, DNS: []string{c.Node}}
		for _, ip := range c.IPs {
			p.IPs = append(p.IPs, ip.AsSlice())
		}
		return p
	case c.Network:
		return pki.Profile{CommonName: auth.NetworkGroup + ":" + c.Node, Organization: []string{auth.NetworkGroup}, Client: true}
	}
	return pki.Profile{CommonName: "system:node:" + c.Node, Organization: []string{request.Nodes}, Client: true}
}
