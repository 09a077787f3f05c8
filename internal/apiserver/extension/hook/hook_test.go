package hook

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timed, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		for _, c := range []struct {
			to   Target
			ctx  context.Context
			want string
		}{
			{Target{URL: "https://127.0.0.1:9443//mutate"}, t.Context(), "https://127.0.0.1:9443/mutate"},
			{Target{URL: "https://hooks.example.com/a/b"}, timed, "https://hooks.example.com/a/b?timeout=3s"},
			{Target{URL: "https://hooks.example.com"}, t.Context(), "https://hooks.example.com/"},
			{Target{Service: &Service{Namespace: "n", Name: "s", Port: 443}}, timed, "https://s.n.svc:443/?timeout=3s"},
			{Target{Service: &Service{Namespace: "n", Name: "s", Port: 8443, Path: "x/y"}}, t.Context(), "https://s.n.svc:8443/x/y"},
		} {
			if got, err := address(c.ctx, c.to); err != nil || got != c.want {
				t.Errorf("%+v: %q, %v; want %q", c.to, got, err, c.want)
			}
		}
	})
}
