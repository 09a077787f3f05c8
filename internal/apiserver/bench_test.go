package apiserver

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// benchPod is the pod of the project's benchmark against upstream.
const benchPod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p-%06d","labels":{"app":"plumber","tier":"t%d","pod-template-hash":"5d8b7c9f"},"annotations":{"note":"a bench pod of ordinary size"}},"spec":{"schedulerName":"none","containers":[{"name":"plumber","image":"mdneuzerling/plumber-on-k8s","ports":[{"containerPort":8000}],"env":[{"name":"A","value":"1"},{"name":"B","value":"2"},{"name":"POD","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}],"resources":{"requests":{"cpu":"100m","memory":"64Mi"},"limits":{"memory":"256Mi"}},"livenessProbe":{"httpGet":{"path":"/health","port":8000},"periodSeconds":3},"readinessProbe":{"httpGet":{"path":"/health","port":8000},"periodSeconds":3}}],"volumes":[{"name":"v","emptyDir":{}}]}}`

// direct calls the handler without a network.
func direct(b *testing.B, h http.Handler, want int, method, path, ctype, body string) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:1"
	r.Header.Set("User-Agent", "bench/1.0")
	if ctype != "" {
		r.Header.Set("Content-Type", ctype)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != want {
		b.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
}

func BenchmarkRequests(b *testing.B) {
	h := newHarness(b)
	handler := h.server.Handler()
	const n = 200
	for i := range n {
		direct(b, handler, 201, "POST", podsPath, "application/json", fmt.Sprintf(benchPod, i, i%10))
	}
	next := n
	one := func(i int) string { return fmt.Sprintf("%s/p-%06d", podsPath, i%n) }
	for _, c := range []struct {
		name string
		do   func(i int)
	}{
		{"create", func(int) {
			next++
			direct(b, handler, 201, "POST", podsPath, "application/json", fmt.Sprintf(benchPod, next, next%10))
		}},
		{"get", func(i int) { direct(b, handler, 200, "GET", one(i), "", "") }},
		{"merge", func(i int) {
			direct(b, handler, 200, "PATCH", one(i), "application/merge-patch+json", fmt.Sprintf(`{"metadata":{"annotations":{"x":"%d"}}}`, i))
		}},
		{"status", func(i int) {
			direct(b, handler, 200, "PATCH", one(i)+"/status", "application/strategic-merge-patch+json", fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"True"}],"podIP":"10.0.%d.%d"}}`, i/250%250, i%250+1))
		}},
		{"apply", func(i int) {
			direct(b, handler, 200, "PATCH", one(i)+"?fieldManager=bench&force=true", "application/apply-patch+yaml", fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p-%06d","labels":{"ssa":"y%d"}}}`, i%n, i))
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.do(i)
			}
		})
	}
}
