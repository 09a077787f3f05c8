// Package stream passes requests on to where a pod runs: log, exec, attach and
// port-forward to the kubelet of its node, proxy to pods, services and nodes.
// Once a connection is upgraded (SPDY or WebSocket), bytes are copied as they are.
package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/proxy"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
)

// Config says how nodes are reached.
type Config struct {
	TLS *tls.Config // shows the client certificate that kubelets know, and says how theirs are checked; nil = neither
	// Port of kubelets whose node does not say; 0 = 10250.
	Port int
	// Dial reaches nodes and pods; nil = directly.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Proxy passes requests on.
type Proxy struct {
	cfg   Config
	verbs *verbs.Verbs
	log   *slog.Logger
	nodes *http.Transport // to kubelets
	pods  *http.Transport // to pods and services, whose certificates nobody here can check
}

// New proxy; v finds pods, nodes and services.
func New(c Config, v *verbs.Verbs, log *slog.Logger) *Proxy {
	if c.Port == 0 {
		c.Port = usualPort
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	if c.TLS == nil {
		c.TLS = &tls.Config{InsecureSkipVerify: true}
	}
	to := func(t *tls.Config) *http.Transport {
		return &http.Transport{DialContext: c.Dial, TLSClientConfig: t, MaxIdleConnsPerHost: 25, IdleConnTimeout: 90 * time.Second, DisableCompression: true}
	}
	return &Proxy{cfg: c, verbs: v, log: log, nodes: to(c.TLS), pods: to(&tls.Config{InsecureSkipVerify: true})}
}

// handled are the subresources that are passed on.
var handled = []string{"pods/log", "pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "services/proxy", "nodes/proxy"}

// Handles says whether a subresource is one that is passed on.
func (p *Proxy) Handles(k *api.Kind, sub string) bool {
	return k.Group == "" && slices.Contains(handled, k.Resource+"/"+sub)
}

// Fail answers with an error.
type Fail func(w http.ResponseWriter, r *http.Request, err error)

// Serve passes a request on. rest is the path after the subresource, with its
// leading slash ("" = none).
func (p *Proxy) Serve(w http.ResponseWriter, r *http.Request, q *verbs.Request, rest string, fail Fail) {
	var to *target
	var err error
	switch q.Kind.Kind.Resource + "/" + q.Subresource {
	case "pods/log":
		to, err = p.logs(r, q)
		if err == nil {
			err = p.copyLog(w, r, to)
		}
		if err != nil {
			fail(w, r, err)
		}
		return
	case "pods/exec", "pods/attach", "pods/portforward":
		to, err = p.session(r, q)
	case "pods/proxy":
		to, err = p.pod(r, q)
	case "services/proxy":
		to, err = p.service(r, q)
	case "nodes/proxy":
		to, err = p.node(r, q)
	}
	if err != nil {
		fail(w, r, err)
		return
	}
	p.pass(w, r, q, to, rest, fail)
}

// target is where a request is passed on to.
type target struct {
	url  url.URL
	via  *http.Transport
	what string // for errors: the kubelet of node x
	// session: only upgraded connections make sense (exec …); else it is a proxy,
	// whose answers have their links rewritten.
	session bool
}

// pass the request on, by upgrade if it asks for one.
func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, q *verbs.Request, to *target, rest string, fail Fail) {
	location := to.url
	if !to.session {
		location.Path = rest
		location.RawQuery = r.URL.RawQuery
	}
	r = r.Clone(r.Context())
	for _, name := range []string{"Authorization", "Impersonate-User", "Impersonate-Group"} { // ours, not theirs
		r.Header.Del(name)
	}
	h := proxy.NewUpgradeAwareHandler(&location, to.via, !to.session, false, responder{p, to, fail, q})
	h.UseLocationHost = to.session
	h.ServeHTTP(w, r)
}

// responder answers when a request could not be passed on.
type responder struct {
	p    *Proxy
	to   *target
	fail Fail
	q    *verbs.Request
}

// Error implements proxy.ErrorResponder.
func (e responder) Error(w http.ResponseWriter, r *http.Request, err error) {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		err = e.to.unreachable(err)
	}
	e.fail(w, r, err)
}

// unreachable says what could not be reached, and why.
func (t *target) unreachable(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if t.session {
		return apierrors.NewInternalError(fmt.Errorf("error dialing backend: %s cannot be reached: %w", t.what, err))
	}
	return apierrors.NewServiceUnavailable(fmt.Sprintf("error trying to reach %s: %v", t.what, err))
}

// copyLog sends what a kubelet says, as it comes.
func (p *Proxy) copyLog(w http.ResponseWriter, r *http.Request, to *target) error {
	if to == nil { // the pod is on no node: there is nothing to read
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	out, err := http.NewRequestWithContext(r.Context(), http.MethodGet, to.url.String(), nil)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	answer, err := to.via.RoundTrip(out)
	if err != nil {
		return to.unreachable(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 400 {
		return said(answer)
	}
	if framed(r) {
		copyFrames(w, r, answer.Body)
		return nil
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(http.StatusOK)
	flusher := http.NewResponseController(w)
	_ = flusher.Flush()
	buf := make([]byte, 32<<10)
	for {
		n, err := answer.Body.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return nil
			}
			_ = flusher.Flush()
		}
		if err != nil {
			return nil // the header is out: nothing more can be said
		}
	}
}

// said turns the refusal of a kubelet into a Status with its words.
func said(answer *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 50<<10))
	message := strings.TrimSpace(string(text))
	switch answer.StatusCode {
	case http.StatusBadRequest:
		return apierrors.NewBadRequest(message)
	case http.StatusInternalServerError:
		return apierrors.NewInternalError(errors.New(message))
	}
	return apierrors.NewGenericServerResponse(answer.StatusCode, "", schema.GroupResource{}, "", message, 0, true)
}
