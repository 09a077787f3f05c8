package proxy

import (
	"context"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/knftables"
)

func TestDecideEndpoints(t *testing.T) {
	local := ptr(corev1.ServiceInternalTrafficPolicyLocal)
	for _, c := range []struct {
		name   string
		slice  *discoveryv1.EndpointSlice
		policy *corev1.ServiceInternalTrafficPolicy
		want   string // endpoints of the cluster IP
	}{
		{"ready ones, sorted", slice("10.0.0.2@n2", "10.0.0.1@n1", "10.0.0.3@n1,not-ready"), nil, "10.0.0.1 10.0.0.2"},
		{"no terminating ones beside ready ones", slice("10.0.0.1@n1,terminating", "10.0.0.2@n2"), nil, "10.0.0.2"},
		{"terminating ones as a last resort", slice("10.0.0.1@n1,terminating", "10.0.0.2@n2,not-ready"), nil, "10.0.0.1"},
		{"internal policy Local", slice("10.0.0.1@n1", "10.0.0.2@n2"), local, "10.0.0.1"},
		{"Local falls back to a terminating one here", slice("10.0.0.1@n1,terminating", "10.0.0.2@n2"), local, "10.0.0.1"},
		{"Local with none here drops", slice("10.0.0.2@n2"), local, "drop"},
		{"zone hints", slice("10.0.0.1@n1,zone=a", "10.0.0.2@n2,zone=b"), nil, "10.0.0.1"},
		{"zone hints not on every endpoint", slice("10.0.0.1@n1,zone=a", "10.0.0.2@n2"), nil, "10.0.0.1 10.0.0.2"},
		{"zone hints, none for us", slice("10.0.0.1@n1,zone=c", "10.0.0.2@n2,zone=b"), nil, "10.0.0.1 10.0.0.2"},
		{"node hints", slice("10.0.0.1@n1,node=n2", "10.0.0.2@n2,node=n1"), nil, "10.0.0.2"},
		{"none", slice(), nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			svc := service("s", "10.96.0.1", func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = c.policy })
			f := Decide(svc, []*discoveryv1.EndpointSlice{c.slice}, Node{Name: "n1", Zone: "a"}).Frontends[0]
			var got []string
			for _, e := range f.Endpoints {
				got = append(got, e.Addr().String())
			}
			if f.Drop && len(got) == 0 {
				got = []string{"drop"}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

func TestServicesWithoutProxy(t *testing.T) {
	for name, change := range map[string]func(*corev1.Service){
		"headless":     func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone },
		"ExternalName": func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName },
		"no address":   func(s *corev1.Service) { s.Spec.ClusterIP = "" },
		"other proxy": func(s *corev1.Service) {
			s.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "x"}
		},
	} {
		if plan := Decide(service("s", "10.96.0.1", change), []*discoveryv1.EndpointSlice{slice("10.0.0.1@n1")}, Node{Name: "n1"}); !plan.empty() {
			t.Errorf("%s: %+v", name, plan)
		}
	}
}

var rewrite = flag.Bool("rewrite", false, "write testdata anew")

// recorder is the fake with what was asked of it.
type recorder struct {
	*knftables.Fake
	last string
}

func (r *recorder) Run(ctx context.Context, tx *knftables.Transaction) error {
	r.last = tx.String()
	return r.Fake.Run(ctx, tx)
}

func TestGolden(t *testing.T) {
	fake := &recorder{Fake: knftables.NewFake(knftables.InetFamily, TableName("c"))}
	p, err := New(Config{
		Cluster: "c", NFT: fake,
		PodCIDRs:     []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:1::/64")},
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:2::/112")},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, node := context.Background(), Node{Name: "n1"}
	v4 := slice("10.244.0.2@n1", "10.244.1.3@n2")
	plan := func(svc *corev1.Service, all ...*discoveryv1.EndpointSlice) map[Owner]Plan {
		return map[Owner]Plan{Owner("service default/" + svc.Name): Decide(svc, all, node)}
	}
	step := func(name string, do func() error) {
		t.Helper()
		fake.last = ""
		if err := do(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		file := filepath.Join("testdata", name+".nft")
		if *rewrite {
			if err := os.WriteFile(file, []byte(fake.last), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if fake.last != string(want) {
			t.Errorf("%s (go test -rewrite accepts it):\n%s", name, fake.last)
		}
	}
	apply := func(change map[Owner]Plan) func() error { return func() error { return p.Apply(ctx, change) } }

	step("start", func() error { return p.Set(ctx, plan(service("web", "10.96.0.1"), v4)) })
	step("again", func() error { return p.Set(ctx, plan(service("web", "10.96.0.1"), v4)) })
	step("new-service", apply(plan(service("nodeport", "10.96.0.2", nodePorts), v4)))
	step("sticky", apply(plan(service("sticky", "10.96.0.3", sticky(100)), v4)))
	step("local", apply(plan(service("local", "10.96.0.4", nodePorts, func(s *corev1.Service) {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}), v4)))
	step("load-balancer", apply(plan(service("lb", "10.96.0.5", func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.LoadBalancerSourceRanges = []string{"203.0.113.0/24"}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.51.100.1"}}
	}), v4)))
	step("ipv6", apply(plan(service("six", "fd00:2::1"), slice("fd00:1::2@n1"))))
	step("endpoint-gone", apply(plan(service("web", "10.96.0.1"), slice("10.244.1.3@n2"))))
	step("no-endpoints", apply(plan(service("web", "10.96.0.1"))))
	step("service-gone", apply(map[Owner]Plan{"service default/web": {}}))
	fresh, err := New(Config{Cluster: "c", NFT: fake})
	if err != nil {
		t.Fatal(err)
	}
	step("adopt", func() error { return fresh.Set(ctx, nil) })
}

func TestOneAddressTwoOwners(t *testing.T) {
	fake := knftables.NewFake(knftables.InetFamily, TableName("c"))
	p, err := New(Config{Cluster: "c", NFT: fake})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx := context.Background()
	external := func(name, ip string) Plan {
		return Decide(service(name, ip, func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"198.51.100.1"} }),
			[]*discoveryv1.EndpointSlice{slice("10.244.0.2@n1")}, Node{Name: "n1"})
	}
	has := func() bool {
		return fake.Table != nil && fake.Table.Maps["services4"].FindElement("198.51.100.1", "tcp", "80") != nil
	}
	if err := p.Set(ctx, map[Owner]Plan{"service a/a": external("a", "10.96.0.1"), "service b/b": external("b", "10.96.0.2")}); err != nil {
		t.Fatal(err)
	}
	for i, change := range []map[Owner]Plan{{"service a/a": {}}, {"service a/a": external("a", "10.96.0.1")}, {"service b/b": {}}} {
		if err := p.Apply(ctx, change); err != nil || !has() {
			t.Fatalf("step %d: %v, external IP served: %v", i, err, has())
		}
	}
	if err := p.Set(ctx, nil); err != nil || has() {
		t.Errorf("%v, external IP served after both are gone: %v", err, has())
	}
}
