package ingress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Failure is an answer of the ingress' own.
type Failure struct {
	Status   int      `json:"status"`
	Reason   string   `json:"reason"`
	Hop      string   `json:"hop"` // where it went wrong: "ingress", "service", "endpoint"
	Ingress  string   `json:"ingress,omitempty"`
	Service  string   `json:"service,omitempty"`
	Endpoint string   `json:"endpoint,omitempty"`
	Attempts int      `json:"attempts,omitempty"`
	Message  string   `json:"message"`
	Look     []string `json:"look,omitempty"` // commands that show more
}

// notFound is the answer when no rule matches.
func notFound(req *http.Request) Failure {
	return Failure{Status: http.StatusNotFound, Reason: "Not Found", Hop: "ingress",
		Message: fmt.Sprintf("no Ingress has a rule for host %q and path %q", req.Host, req.URL.Path),
		Look:    []string{"kubectl get ingress -A"}}
}

// failed says what an exchange failed of. ok is false when nobody is there to
// be told: the client has gone.
func failed(x *exchange, err error) (f Failure, ok bool) {
	key := x.backend.key
	f = Failure{Ingress: x.rule.Ingress.String(), Service: fmt.Sprintf("%s/%s port %s", key.Namespace, key.Service, portText(key.Port)),
		Endpoint: x.endpoint, Attempts: x.attempts}
	slices := fmt.Sprintf("kubectl -n %s get endpointslices -l kubernetes.io/service-name=%s", key.Namespace, key.Service)
	describe := fmt.Sprintf("kubectl -n %s describe service %s", key.Namespace, key.Service)
	pods := fmt.Sprintf("kubectl -n %s get pods -o wide", key.Namespace)
	var client errClient
	switch {
	case errors.Is(err, errTimeout):
		f.Status, f.Reason, f.Hop = http.StatusGatewayTimeout, "Gateway Timeout", "endpoint"
		f.Message = fmt.Sprintf("the endpoint did not begin to answer within %v, the limit that annotation %s of Ingress %s sets", x.rule.Options.Timeout, AnnotationTimeout, f.Ingress)
		f.Look = []string{fmt.Sprintf("kubectl -n %s describe ingress %s", x.rule.Ingress.Namespace, x.rule.Ingress.Name), pods}
	case errors.As(err, &client):
		f.Status, f.Reason, f.Hop = http.StatusBadRequest, "Bad Request", "ingress"
		f.Message = "the request's body did not come whole: " + err.Error()
	case errors.Is(err, errNoEndpoints):
		f.Status, f.Reason, f.Hop = http.StatusServiceUnavailable, "Service Unavailable", "service"
		if f.Message = *x.backend.fault.Load(); f.Message == "" {
			f.Message = "the Service has no endpoint that is ready"
		}
		f.Look = []string{slices, describe, pods}
	case errors.Is(err, context.Canceled):
		return f, false
	default:
		f.Status, f.Reason, f.Hop = http.StatusBadGateway, "Bad Gateway", "endpoint"
		f.Message = "the endpoint could not be reached: " + err.Error()
		if !isDial(err) {
			f.Message = "the endpoint closed the connection before it answered: " + err.Error() +
				"; the request may have been worked on, so it was not repeated"
		}
		f.Look = []string{pods, slices, fmt.Sprintf("kubectl -n %s get events", key.Namespace)}
	}
	return f, true
}

// write answers, as JSON if the client prefers that.
func (f Failure) write(w http.ResponseWriter, req *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if f.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	if accept := req.Header.Get("Accept"); strings.Contains(accept, "json") && !strings.Contains(accept, "text/html") {
		h.Set("Content-Type", "application/json")
		w.WriteHeader(f.Status)
		_ = json.NewEncoder(w).Encode(f)
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(f.Status)
	fmt.Fprintf(w, "%d %s (Proa ingress)\n\n%s\n\n", f.Status, f.Reason, f.Message)
	for _, l := range [][2]string{{"hop", f.Hop}, {"ingress", f.Ingress}, {"service", f.Service}, {"endpoint", f.Endpoint}} {
		if l[1] != "" {
			fmt.Fprintf(w, "%-9s %s\n", l[0], l[1])
		}
	}
	for _, l := range f.Look {
		fmt.Fprintf(w, "%-9s %s\n", "look at", l)
	}
}
