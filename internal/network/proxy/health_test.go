package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/knftables"
)

func TestHealthCheckNodePort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	p, err := New(Config{Cluster: "c", NFT: knftables.NewFake(knftables.InetFamily, TableName("c")), HealthHost: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	svc := service("web", "10.96.0.1", nodePorts, func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		s.Spec.HealthCheckNodePort = int32(port)
	})
	ask := func() (int, string, error) {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", port))
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, resp.Header.Get("X-Load-Balancing-Endpoint-Weight") + " " + string(body), nil
	}
	for _, c := range []struct {
		slice *discoveryv1.EndpointSlice
		code  int
		body  string
	}{
		{slice("10.0.0.1@n1", "10.0.0.2@n1", "10.0.0.3@n2", "10.0.0.4@n1,terminating"), 200, `2 {"localEndpoints":2,"service":{"name":"web","namespace":"default"},"serviceProxyHealthy":true}`},
		{slice("10.0.0.3@n2"), 503, `0 {"localEndpoints":0,`},
	} {
		plan := Decide(svc, []*discoveryv1.EndpointSlice{c.slice}, Node{Name: "n1"})
		if err := p.Apply(context.Background(), map[Owner]Plan{"service default/web": plan}); err != nil {
			t.Fatal(err)
		}
		code, body, err := ask()
		if err != nil || code != c.code || !strings.HasPrefix(body, c.body) {
			t.Errorf("%d %s %v, want %d %s", code, body, err, c.code, c.body)
		}
	}
	if err := p.Apply(context.Background(), map[Owner]Plan{"service default/web": {}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ask(); err == nil {
		t.Error("the port is open after the Service has gone")
	}
}
