package apiserver

import (
	"net/netip"
	"testing"
)

func TestDualStack(t *testing.T) {
	h := newHarness(t, func(c *Config) {
		c.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112")}
	})
	family := func(r reply, i int, want bool) {
		t.Helper()
		text, _ := r.at("spec", "clusterIPs", i).(string)
		if ip, err := netip.ParseAddr(text); err != nil || ip.Is6() != want {
			t.Errorf("address %d of %s", i, r)
		}
	}
	r := h.ok("POST", services, svc("single", ""))
	family(r, 0, false)
	if r.at("spec", "clusterIPs", 1) != nil || r.at("spec", "ipFamilyPolicy") != "SingleStack" {
		t.Errorf("single: %s", r)
	}
	r = h.ok("POST", services, svc("six", `,"ipFamilies":["IPv6"]`))
	family(r, 0, true)
	r = h.ok("POST", services, svc("both", `,"ipFamilyPolicy":"PreferDualStack"`))
	family(r, 0, false)
	family(r, 1, true)
	if r.at("spec", "ipFamilies", 1) != "IPv6" {
		t.Errorf("both: %s", r)
	}
	r = h.ok("POST", services, svc("sixfirst", `,"ipFamilyPolicy":"RequireDualStack","clusterIP":"fd00:10:96::1234"`))
	if r.at("spec", "clusterIP") != "fd00:10:96::1234" {
		t.Errorf("sixfirst: %s", r)
	}
	family(r, 1, false)
	h.fails(422, "Invalid", "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified", "POST", services, svc("x", `,"ipFamilyPolicy":"SingleStack","ipFamilies":["IPv4","IPv6"]`))

	merge := "Content-Type: application/merge-patch+json"
	r = h.ok("PATCH", services+"/single", `{"spec":{"ipFamilyPolicy":"PreferDualStack"}}`, merge)
	family(r, 0, false)
	family(r, 1, true)
	r = h.ok("PATCH", services+"/single", `{"spec":{"ipFamilyPolicy":"SingleStack"}}`, merge)
	if r.at("spec", "clusterIPs", 1) != nil || r.at("spec", "ipFamilies", 1) != nil {
		t.Errorf("back to one: %s", r)
	}
}

func TestServicePorts(t *testing.T) {
	h := newHarness(t)
	r := h.ok("POST", services, `{"metadata":{"name":"dns"},"spec":{"type":"NodePort","selector":{"a":"b"},"ports":[{"name":"u","port":53,"protocol":"UDP"},{"name":"t","port":53,"protocol":"TCP"}]}}`)
	if p := r.at("spec", "ports", 0, "nodePort"); p == nil || p != r.at("spec", "ports", 1, "nodePort") {
		t.Errorf("one port by two protocols: %s", r)
	}
	lb := h.ok("POST", services, `{"metadata":{"name":"lb"},"spec":{"type":"LoadBalancer","externalTrafficPolicy":"Local","selector":{"a":"b"},"ports":[{"port":80}]}}`)
	if lb.at("spec", "healthCheckNodePort") == nil || lb.at("spec", "ports", 0, "nodePort") == nil {
		t.Errorf("load balancer: %s", lb)
	}
	no := h.ok("POST", services, `{"metadata":{"name":"no"},"spec":{"type":"LoadBalancer","allocateLoadBalancerNodePorts":false,"selector":{"a":"b"},"ports":[{"port":80}]}}`)
	if no.at("spec", "ports", 0, "nodePort") != nil {
		t.Errorf("without node ports: %s", no)
	}
	ext := h.ok("POST", services, `{"metadata":{"name":"ext"},"spec":{"type":"ExternalName","externalName":"example.org"}}`)
	if ext.at("spec", "clusterIP") != nil || ext.at("spec", "ipFamilies") != nil {
		t.Errorf("external name: %s", ext)
	}
	merge := "Content-Type: application/merge-patch+json"
	in := h.ok("PATCH", services+"/ext", `{"spec":{"type":"ClusterIP","externalName":null,"ports":[{"port":80}]}}`, merge)
	if in.at("spec", "clusterIP") == nil {
		t.Errorf("from an external name: %s", in)
	}
}

// More addresses come with a ServiceCIDR, at once; those that somebody else has an
// IPAddress for are not given (KEP-1880).
func TestServiceRanges(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/30")} })
	const ranges, addresses = "/apis/networking.k8s.io/v1/servicecidrs", "/apis/networking.k8s.io/v1/ipaddresses"
	ip := func(r reply) netip.Addr {
		t.Helper()
		text, _ := r.at("spec", "clusterIP").(string)
		a, err := netip.ParseAddr(text)
		if err != nil {
			t.Fatalf("%v: %s", err, r)
		}
		return a
	}
	first, second := ip(h.ok("POST", services, svc("a", ""))), ip(h.ok("POST", services, svc("b", "")))
	if in := netip.MustParsePrefix("10.96.0.0/30"); !in.Contains(first) || !in.Contains(second) || first == second {
		t.Fatal(first, second)
	}
	h.fails(500, "InternalError", "range is full", "POST", services, svc("c", ""))
	h.fails(422, "Invalid", "The range of valid IPs is 10.96.0.0/30", "POST", services, svc("c", `,"clusterIP":"10.200.0.9"`))

	h.ok("POST", ranges, `{"metadata":{"name":"more"},"spec":{"cidrs":["10.200.0.0/24"]}}`)
	if got := ip(h.ok("POST", services, svc("c", ""))); !netip.MustParsePrefix("10.200.0.0/24").Contains(got) {
		t.Errorf("out of the second range: %s", got)
	}
	h.ok("POST", addresses, `{"metadata":{"name":"10.200.0.10"},"spec":{"parentRef":{"group":"gateway.networking.k8s.io","resource":"gateways","namespace":"default","name":"g"}}}`)
	h.fails(422, "Invalid", "provided IP is already allocated", "POST", services, svc("d", `,"clusterIP":"10.200.0.10"`))
	h.ok("POST", services, svc("e", `,"clusterIP":"10.200.0.11"`))
	h.fails(422, "Invalid", "The range of valid IPs is 10.96.0.0/30, 10.200.0.0/24", "POST", services, svc("d", `,"clusterIP":"10.7.0.10"`))

	h.ok("DELETE", ranges+"/more", "")
	h.fails(422, "Invalid", "is not in the valid range", "POST", services, svc("d", `,"clusterIP":"10.200.0.12"`))
	h.ok("PATCH", services+"/e", `{"metadata":{"labels":{"still":"here"}}}`, "Content-Type: application/merge-patch+json")
}
