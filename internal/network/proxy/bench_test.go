package proxy

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/proa-dev/proa/internal/network/nettest"
)

// BenchmarkApply is one change of the endpoints of one Service, beside n others.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			nettest.NeedNFT(b)
			ns := nettest.New(b)
			node := Node{Name: "n1"}
			all := map[Owner]Plan{}
			for i := range n {
				svc := service("s", fmt.Sprintf("10.96.%d.%d", i>>8, i&255), func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[:1] })
				all[Owner(fmt.Sprintf("service default/s%d", i))] = Decide(svc, []*discoveryv1.EndpointSlice{
					slice("10.244.0.2@n1", "10.244.0.3@n1", fmt.Sprintf("10.245.%d.%d@n2", i>>8, i&255))}, node)
			}
			svc := service("x", "10.97.0.1", func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[:1] })
			states := []Plan{
				Decide(svc, []*discoveryv1.EndpointSlice{slice("10.244.0.2@n1", "10.244.0.3@n1")}, node),
				Decide(svc, []*discoveryv1.EndpointSlice{slice("10.244.0.2@n1", "10.244.0.4@n1", "10.244.0.5@n1")}, node),
			}
			ns.Do(func() {
				p, err := New(Config{Cluster: "bench"})
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close()
				if err := p.Set(context.Background(), all); err != nil {
					b.Fatal(err)
				}
				i := 0
				for b.Loop() {
					i++
					if err := p.Apply(context.Background(), map[Owner]Plan{"service default/x": states[i%2]}); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				fresh, err := New(Config{Cluster: "bench"})
				if err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				if err := fresh.Set(context.Background(), all); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms-to-adopt")
			})
		})
	}
}
