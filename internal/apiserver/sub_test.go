package apiserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

const (
	deploys = "/apis/apps/v1/namespaces/default/deployments"
	deploy  = `{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`
)

func TestScale(t *testing.T) {
	h := newHarness(t)
	h.ok("POST", deploys, deploy)
	r := h.ok("GET", deploys+"/d/scale", "")
	if r.at("kind") != "Scale" || r.at("apiVersion") != "autoscaling/v1" || r.at("spec", "replicas") != 1.0 || r.at("status", "selector") != "a=b" {
		t.Errorf("scale %s", r)
	}
	r = h.ok("PUT", deploys+"/d/scale", `{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"d","namespace":"default"},"spec":{"replicas":4}}`)
	if r.at("spec", "replicas") != 4.0 {
		t.Errorf("scaled %s", r)
	}
	r = h.ok("PATCH", deploys+"/d/scale", `{"spec":{"replicas":5}}`, "Content-Type: application/merge-patch+json")
	d := h.ok("GET", deploys+"/d", "")
	if r.at("spec", "replicas") != 5.0 || d.at("spec", "replicas") != 5.0 || d.at("metadata", "generation") != 3.0 {
		t.Errorf("scaled %s\n%s", r, d)
	}
	h.fails(409, "Conflict", "the object has been modified", "PUT", deploys+"/d/scale", `{"metadata":{"name":"d","namespace":"default","resourceVersion":"1"},"spec":{"replicas":4}}`)
}

func TestStatus(t *testing.T) {
	h := newHarness(t)
	r := h.ok("POST", deploys, deploy)
	body := strings.Replace(string(r.body), `"status":{}`, `"status":{"replicas":3}`, 1)
	if u := h.ok("PUT", deploys+"/d", body); u.at("status", "replicas") != nil {
		t.Errorf("an update wrote the status: %s", u)
	}
	s := h.ok("PUT", deploys+"/d/status", strings.Replace(body, `"replicas":1`, `"replicas":9`, 1))
	if s.at("status", "replicas") != 3.0 || s.at("spec", "replicas") != 1.0 {
		t.Errorf("status %s", s)
	}
	if g := h.ok("GET", deploys+"/d/status", ""); g.at("status", "replicas") != 3.0 {
		t.Errorf("status %s", g)
	}
}

func TestBinding(t *testing.T) {
	h := newHarness(t)
	h.ok("POST", podsPath, somePod("p"))
	bind := `{"apiVersion":"v1","kind":"Binding","metadata":{"name":"p"},"target":{"kind":"Node","name":"n1"}}`
	if r := h.ok("POST", podsPath+"/p/binding", bind); r.code != 201 || r.at("status") != "Success" {
		t.Errorf("bound %s", r)
	}
	p := h.ok("GET", podsPath+"/p", "")
	if p.at("spec", "nodeName") != "n1" || p.at("status", "conditions", 0, "type") != "PodScheduled" || p.at("status", "conditions", 0, "status") != "True" {
		t.Errorf("pod %s", p)
	}
	h.fails(409, "Conflict", `Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n1"`, "POST", podsPath+"/p/binding", bind)
	h.ok("POST", podsPath, somePod("old"))
	h.ok("POST", "/api/v1/namespaces/default/bindings", strings.Replace(bind, `"name":"p"`, `"name":"old"`, 1))
	h.fails(404, "NotFound", `pods "none" not found`, "POST", podsPath+"/none/binding", strings.Replace(bind, `"name":"p"`, `"name":"none"`, 1))
	h.ok("POST", podsPath, somePod("q"))
	h.fails(422, "Invalid", "target.name: Required value", "POST", podsPath+"/q/binding", `{"metadata":{"name":"q"},"target":{"kind":"Node"}}`)
}

func TestEviction(t *testing.T) {
	h := newHarness(t)
	running := func(n string) {
		h.ok("POST", podsPath, somePod(n))
		h.ok("POST", podsPath+"/"+n+"/binding", `{"metadata":{"name":"`+n+`"},"target":{"name":"n"}}`)
		h.ok("PATCH", podsPath+"/"+n+"/status", `{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`, "Content-Type: application/strategic-merge-patch+json")
	}
	running("a")
	running("b")
	pdbs := "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
	h.ok("POST", pdbs, `{"metadata":{"name":"pdb"},"spec":{"minAvailable":1,"selector":{"matchLabels":{"app":"x"}}}}`)
	h.ok("PATCH", pdbs+"/pdb/status", `{"status":{"observedGeneration":1,"disruptionsAllowed":1,"currentHealthy":2,"desiredHealthy":1,"expectedPods":2}}`, "Content-Type: application/merge-patch+json")
	evict := func(n string) string {
		return fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q}}`, n)
	}
	if r := h.ok("POST", podsPath+"/a/eviction", evict("a")); r.code != 201 || r.at("status") != "Success" {
		t.Errorf("evicted %s", r)
	}
	if p := h.ok("GET", podsPath+"/a", ""); p.at("metadata", "deletionTimestamp") == nil || !strings.Contains(string(p.body), "EvictionByEvictionAPI") {
		t.Errorf("pod %s", p)
	}
	r := h.fails(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.", "POST", podsPath+"/b/eviction", evict("b"))
	if r.at("details", "causes", 0, "reason") != "DisruptionBudget" || r.at("details", "causes", 0, "message") != "The disruption budget pdb does not allow evicting pods currently" || r.header.Get("Retry-After") != "" {
		t.Errorf("refused %s", r)
	}
	h.ok("POST", podsPath, somePod("pending"))
	h.ok("POST", podsPath+"/pending/eviction", strings.Replace(evict("pending"), "policy/v1", "policy/v1beta1", 1))
	h.fails(404, "NotFound", "pending", "GET", podsPath+"/pending", "")
}

const services = "/api/v1/namespaces/default/services"

func svc(name, spec string) string {
	return fmt.Sprintf(`{"metadata":{"name":%q},"spec":{"ports":[{"port":80}],"selector":{"a":"b"}%s}}`, name, spec)
}

func TestServiceAddresses(t *testing.T) {
	h := newHarness(t)
	r := h.ok("POST", services, svc("a", ""))
	ip, _ := r.at("spec", "clusterIP").(string)
	addr, err := netip.ParseAddr(ip)
	if err != nil || !netip.MustParsePrefix("10.96.0.0/24").Contains(addr) || r.at("spec", "clusterIPs", 0) != ip || r.at("spec", "ipFamilies", 0) != "IPv4" || r.at("spec", "ipFamilyPolicy") != "SingleStack" {
		t.Errorf("created %s", r)
	}
	h.fails(422, "Invalid", `spec.clusterIPs: Invalid value: ["`+ip+`"]: failed to allocate IP `+ip+`: provided IP is already allocated`, "POST", services, svc("b", `,"clusterIP":"`+ip+`"`))
	h.fails(422, "Invalid", "the provided IP (10.1.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/24", "POST", services, svc("b", `,"clusterIP":"10.1.0.1"`))
	if r := h.ok("POST", services, svc("own", `,"clusterIP":"10.96.0.10"`)); r.at("spec", "clusterIP") != "10.96.0.10" {
		t.Errorf("own %s", r)
	}
	n := h.ok("POST", services, svc("np", `,"type":"NodePort"`))
	port, _ := n.at("spec", "ports", 0, "nodePort").(float64)
	if port < 30000 || port > 32767 {
		t.Errorf("node port %s", n)
	}
	h.fails(422, "Invalid", "provided port is already allocated", "POST", services, fmt.Sprintf(`{"metadata":{"name":"x"},"spec":{"type":"NodePort","ports":[{"port":80,"nodePort":%d}]}}`, int(port)))
	h.fails(422, "Invalid", "provided port is not in the valid range. The range of valid ports is 30000-32767", "POST", services, `{"metadata":{"name":"x"},"spec":{"type":"NodePort","ports":[{"port":80,"nodePort":80}]}}`)
	h.ok("DELETE", services+"/a", "")
	if r := h.ok("POST", services, svc("b", `,"clusterIP":"`+ip+`"`)); r.at("spec", "clusterIP") != ip {
		t.Errorf("released %s", r)
	}
	if r := h.ok("POST", services, svc("none", `,"clusterIP":"None"`)); r.at("spec", "clusterIP") != "None" {
		t.Errorf("headless %s", r)
	}
	h.fails(422, "Invalid", "this cluster is not configured for dual-stack services", "POST", services, svc("dual", `,"ipFamilyPolicy":"RequireDualStack"`))
	before := h.ok("GET", services+"/np", "")
	changed := h.ok("PATCH", services+"/np", `{"spec":{"type":"ClusterIP"}}`, "Content-Type: application/merge-patch+json")
	if changed.at("spec", "ports", 0, "nodePort") != nil || changed.at("spec", "clusterIP") != before.at("spec", "clusterIP") {
		t.Errorf("no more node port: %s", changed)
	}
	h.ok("POST", services, fmt.Sprintf(`{"metadata":{"name":"again"},"spec":{"type":"NodePort","ports":[{"port":80,"nodePort":%d}]}}`, int(port)))
}

func TestServicesFillRange(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/28")} })
	seen := map[any]bool{}
	type out struct {
		r reply
	}
	results := make(chan out)
	for i := range 16 {
		go func() { results <- out{h.do("POST", services, svc(fmt.Sprintf("s%d", i), ""))} }()
	}
	full := 0
	for range 16 {
		r := (<-results).r
		switch {
		case r.code == 201 && !seen[r.at("spec", "clusterIP")]:
			seen[r.at("spec", "clusterIP")] = true
		case r.code == 500 && strings.Contains(r.String(), "range is full"):
			full++
		default:
			t.Errorf("%s", r)
		}
	}
	if len(seen) != 14 || full != 2 {
		t.Errorf("%d addresses were given, %d refused", len(seen), full)
	}
}

func TestLogsAndProxy(t *testing.T) {
	kubelet := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/containerLogs/default/p/c") && r.URL.Query().Get("previous") == "true":
			http.Error(w, "previous terminated container \"c\" in pod \"p\" not found", http.StatusBadRequest)
		case strings.HasPrefix(r.URL.Path, "/containerLogs/default/p/c"):
			fmt.Fprintf(w, "hello %s\n", r.URL.RawQuery)
		case strings.HasPrefix(r.URL.Path, "/exec/default/p/c") && r.Header.Get("Upgrade") != "":
			conn, rw, _ := http.NewResponseController(w).Hijack()
			fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n%s", r.URL.RawQuery)
			rw.Flush()
			conn.Close()
		default:
			fmt.Fprintf(w, "node says %s", r.URL.Path)
		}
	}))
	defer kubelet.Close()
	u, _ := url.Parse(kubelet.URL)
	h := newHarness(t)
	h.ok("POST", "/api/v1/nodes", `{"metadata":{"name":"n"}}`)
	h.ok("PATCH", "/api/v1/nodes/n/status", fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":%q}],"daemonEndpoints":{"kubeletEndpoint":{"Port":%s}}}}`, u.Hostname(), u.Port()), "Content-Type: application/merge-patch+json")
	h.ok("POST", podsPath, somePod("p"))
	if r := h.ok("GET", podsPath+"/p/log", ""); len(r.body) != 0 {
		t.Errorf("a pod on no node: %s", r)
	}
	h.ok("POST", podsPath+"/p/binding", `{"metadata":{"name":"p"},"target":{"name":"n"}}`)
	if r := h.ok("GET", podsPath+"/p/log?tailLines=5&timestamps=true", ""); string(r.body) != "hello tailLines=5&timestamps=true\n" {
		t.Errorf("log %s", r)
	}
	h.fails(400, "BadRequest", `previous terminated container "c" in pod "p" not found`, "GET", podsPath+"/p/log?previous=true", "")
	h.fails(400, "BadRequest", "container zz is not valid for pod p", "GET", podsPath+"/p/log?container=zz", "")
	h.fails(404, "NotFound", `pods "q" not found`, "GET", podsPath+"/q/log", "")
	h.fails(422, "Invalid", "tailLines", "GET", podsPath+"/p/log?tailLines=-1", "")
	if r := h.ok("GET", "/api/v1/nodes/n/proxy/healthz", ""); string(r.body) != "node says /healthz" {
		t.Errorf("node proxy %s", r)
	}
	req, _ := http.NewRequest("POST", h.http.URL+podsPath+"/p/exec?command=ls&command=-l&stdout=true", nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "SPDY/3.1")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, _ := resp.Body.Read(b)
	resp.Body.Close()
	if resp.StatusCode != 101 || string(b[:n]) != "command=ls&command=-l&output=1" {
		t.Errorf("exec: %d %q", resp.StatusCode, b[:n])
	}
	kubelet.Close()
	h.fails(500, "InternalError", "the kubelet of node n at "+u.Host+" cannot be reached", "GET", podsPath+"/p/log", "")
}

func TestServiceProxy(t *testing.T) {
	h := newHarness(t)
	h.ok("POST", services, svc("s", ""))
	h.fails(503, "ServiceUnavailable", `no endpoints available for service "s"`, "GET", services+"/s/proxy/x", "")
	h.fails(503, "ServiceUnavailable", `no service port 81 found for service "s"`, "GET", services+"/s:81/proxy/x", "")
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s?%s", r.URL.Path, r.URL.RawQuery) }))
	defer backend.Close()
	reached := ""
	h = newHarness(t, func(c *Config) {
		c.Kubelet.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			reached = address
			return net.Dial(network, backend.Listener.Addr().String())
		}
	})
	h.ok("POST", services, svc("s", ""))
	h.ok("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", `{"metadata":{"name":"s-1","labels":{"kubernetes.io/service-name":"s"}},"addressType":"IPv4","ports":[{"name":"","port":8080}],
		"endpoints":[{"addresses":["10.1.2.3"],"conditions":{"ready":true}},{"addresses":["10.1.2.4"],"conditions":{"ready":false}}]}`)
	if r := h.ok("GET", services+"/s:80/proxy/x/y?a=b", ""); string(r.body) != "/x/y?a=b" || reached != "10.1.2.3:8080" {
		t.Errorf("service proxy %s by %s", r, reached)
	}
}
