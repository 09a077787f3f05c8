package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Check is one part of the server's health.
type Check struct {
	Name  string
	Ready bool // part of /readyz alone, not of /livez
	Do    func(ctx context.Context) error
}

// path answers what is not about a resource.
func (s *Server) path(w *response, r *http.Request) {
	path := r.URL.Path
	switch path {
	case "/healthz", "/livez", "/readyz":
		s.health(w, r, path[1:], "")
		return
	case "/version", "/version/":
		s.writeJSON(w, r, s.cfg.Version)
		return
	case "/metrics":
		s.metrics.ServeHTTP(w, r)
		return
	case "/", "/index.html":
		s.index(w, r)
		return
	case "/.well-known/openid-configuration", "/openid/v1/jwks":
		s.openID(w, r)
		return
	}
	for _, of := range []string{"healthz", "livez", "readyz"} {
		if name, ok := strings.CutPrefix(path, "/"+of+"/"); ok {
			s.health(w, r, of, name)
			return
		}
	}
	if strings.HasPrefix(path, "/openapi/") && s.cfg.OpenAPI != nil {
		s.cfg.OpenAPI.ServeHTTP(w, r)
		return
	}
	if path == "/api" || path == "/apis" || strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/apis/") {
		if s.discovery.Serve(w, r) {
			return
		}
	}
	s.elsewhere(w, r)
}

func (s *Server) writeJSON(w http.ResponseWriter, r *http.Request, v any) {
	doc, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.fail(w, r, apierrors.NewInternalError(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(doc)
}

// checks of the server: what it needs itself, and what it was given.
func (s *Server) checks() []Check {
	own := []Check{
		{Name: "ping", Do: func(context.Context) error { return nil }},
		{Name: "log", Do: func(context.Context) error { return nil }},
		{Name: "etcd", Do: func(ctx context.Context) error {
			_, err := s.cfg.Store.Revision(ctx)
			return err
		}},
		{Name: "informer-sync", Ready: true, Do: func(context.Context) error {
			select {
			case <-s.cfg.Cache.Ready():
				return nil
			default:
				return fmt.Errorf("the store is still being read")
			}
		}},
		{Name: "shutdown", Ready: true, Do: func(context.Context) error {
			if s.closing.Err() != nil {
				return fmt.Errorf("process is shutting down")
			}
			return nil
		}},
	}
	return append(own, s.cfg.Checks...)
}

// health answers /healthz, /livez and /readyz, whole or for one check.
func (s *Server) health(w http.ResponseWriter, r *http.Request, of, name string) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	q := query(r)
	_, verbose := q["verbose"]
	excluded := map[string]bool{}
	for _, e := range q["exclude"] {
		excluded[e] = true
	}
	var report bytes.Buffer
	failed, found := false, name == ""
	for _, c := range s.checks() {
		if name != "" && c.Name != name || c.Ready && of == "livez" {
			continue
		}
		found = true
		if excluded[c.Name] {
			delete(excluded, c.Name)
			fmt.Fprintf(&report, "[+]%s excluded: ok\n", c.Name)
			continue
		}
		if err := c.Do(ctx); err != nil {
			failed = true
			s.log.Warn("a health check failed", "of", of, "check", c.Name, "err", err)
			fmt.Fprintf(&report, "[-]%s failed: reason withheld\n", c.Name)
			continue
		}
		fmt.Fprintf(&report, "[+]%s ok\n", c.Name)
	}
	if len(excluded) > 0 {
		names := make([]string, 0, len(excluded))
		for e := range excluded {
			names = append(names, fmt.Sprintf("%q", e))
		}
		sort.Strings(names)
		fmt.Fprintf(&report, "warn: some health checks cannot be excluded: no matches for %s\n", strings.Join(names, ", "))
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	switch {
	case !found:
		http.NotFound(w, r)
	case failed:
		http.Error(w, report.String()+of+" check failed", http.StatusInternalServerError)
	case verbose && name == "":
		fmt.Fprintf(w, "%s%s check passed\n", report.String(), of)
	default:
		fmt.Fprint(w, "ok")
	}
}

// index lists the paths there are.
func (s *Server) index(w http.ResponseWriter, r *http.Request) {
	paths := []string{
		"/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/apis/", "/healthz", "/livez", "/metrics",
		"/openapi/v2", "/openapi/v3", "/openapi/v3/", "/openid/v1/jwks", "/readyz", "/version",
	}
	seen := map[string]bool{}
	for _, k := range s.cfg.Catalog.All() {
		for _, v := range versionsOf(k) {
			if v.Group == "" {
				continue
			}
			for _, p := range []string{"/apis/" + v.Group, "/apis/" + v.String()} {
				if !seen[p] {
					seen[p] = true
					paths = append(paths, p)
				}
			}
		}
	}
	for _, of := range []string{"healthz", "livez", "readyz"} {
		for _, c := range s.checks() {
			if !(c.Ready && of == "livez") {
				paths = append(paths, "/"+of+"/"+c.Name)
			}
		}
	}
	sort.Strings(paths)
	s.writeJSON(w, r, map[string][]string{"paths": paths})
}

// openID tells relying parties how to check service-account tokens.
func (s *Server) openID(w http.ResponseWriter, r *http.Request) {
	if s.cfg.OpenID == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=3600")
	if r.URL.Path == "/openid/v1/jwks" {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		w.Write(s.cfg.OpenID.JWKS())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(s.cfg.OpenID.OpenIDConfiguration("https://" + r.Host + "/openid/v1/jwks"))
}
