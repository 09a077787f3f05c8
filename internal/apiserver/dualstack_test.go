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
