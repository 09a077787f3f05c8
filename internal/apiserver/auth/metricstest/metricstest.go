// Package metricstest looks for tests at what metrics tell.
package metricstest

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Expect lines of what a collector tells; one that begins with ! must not be there,
// nor any that goes on after it.
func Expect(t testing.TB, c prometheus.Collector, lines ...string) {
	t.Helper()
	text := Text(t, c)
	for _, line := range lines {
		if without, ok := strings.CutPrefix(line, "!"); ok {
			if strings.Contains(text, "\n"+without) {
				t.Errorf("there is %s in\n%s", without, about(text, without))
			}
		} else if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("missing: %s in\n%s", line, about(text, line))
		}
	}
}

// about is what a text tells of the metric that a line is about.
func about(text, line string) string {
	name, _, _ := strings.Cut(line, "{")
	name, _, _ = strings.Cut(name, " ")
	var some []string
	for _, l := range strings.Split(text, "\n") {
		if strings.HasPrefix(l, name) {
			some = append(some, l)
		}
	}
	return strings.Join(some, "\n")
}

// Text of what a collector tells.
func Text(t testing.TB, c prometheus.Collector) string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(c); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}
