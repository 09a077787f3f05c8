// Package aggregate makes other API servers part of this one: it keeps the list
// of APIServices (those of the groups served here belong to it), finds out whether
// the servers behind the others can be asked, and passes requests on to them in
// the name of who made them (request-header authentication).
package aggregate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/apiregistration"
	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/apiserver/extension/hook"
	"github.com/proa-dev/proa/internal/apiserver/inprocess"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
)

// Config of an Aggregator.
type Config struct {
	Catalog *api.Catalog
	Of      func(*api.Kind) cache.Reader
	Hooks   *hook.Client // finds endpoints of Services
	// Yields are kinds that are served here only as long as no APIService says that
	// somebody else's server is responsible for their version. They have no
	// APIService of their own, so that whoever brings one finds the name free.
	Yields []*api.Kind
	// Certificate that servers know this one by.
	Certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
	// Servers looks at the certificates that they show; nil = nobody does.
	Servers *metrics.Servers
	Log     *slog.Logger
}

// Aggregator of API servers.
type Aggregator struct {
	Config
	kind *api.Kind
	set  cache.Reader

	mu      sync.Mutex
	servers map[string]*server // by name of the APIService
}

// server is one that others run.
type server struct {
	of        *apiregistrationv1.APIService
	transport *http.Transport
	calls     http.RoundTripper    // by transport
	resources []metav1.APIResource // what it said it serves
}

// New aggregator.
func New(c Config) *Aggregator {
	a := &Aggregator{Config: c, servers: map[string]*server{}}
	if k, ok := c.Catalog.Type(&apiregistrationv1.APIService{}); ok {
		a.kind, a.set = k, c.Of(k)
	}
	return a
}

// recheck is how often servers are asked whether they still answer; one that does
// not is asked again after retry, which doubles up to recheck. Without any server
// nothing wakes up.
const (
	recheck = 30 * time.Second
	retry   = time.Second
)

// Run keeps the list until ctx ends. user writes it.
func (a *Aggregator) Run(ctx context.Context, user *inprocess.User) error {
	w, err := a.set.Watch(cache.WatchOptions{Unbounded: true})
	if err != nil {
		return err
	}
	defer w.Stop()
	woken := make(chan error, 1)
	wait := func() {
		_, _, err := w.Next(ctx)
		woken <- err
	}
	go wait()
	backOff := retry
	for {
		a.yield()
		changed := a.Catalog.Changed()
		a.local(ctx, user)
		again := time.Hour
		switch all, failing := a.remote(ctx, user); {
		case failing > 0:
			again, backOff = backOff, min(2*backOff, recheck)
		case all > 0:
			again, backOff = recheck, retry
		}
		timer := time.NewTimer(again)
		select {
		case <-changed:
		case <-timer.C:
		case err := <-woken:
			if err != nil {
				timer.Stop()
				return ctx.Err()
			}
			go wait()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
	}
}

// yield takes kinds out of the catalog that others serve now, and puts them back
// when these are gone.
func (a *Aggregator) yield() {
	for _, k := range a.Yields {
		_, here := a.Catalog.Resource(k.GroupVersionResource())
		switch others := a.elsewhere(k.GroupVersion()) != nil; {
		case here && others:
			a.Catalog.Remove(k)
			a.Log.Info("somebody else's server answers for a kind", "kind", k.Kind, "version", k.GroupVersion())
		case !here && !others:
			if err := a.Catalog.Put(k); err != nil {
				a.Log.Error("a kind cannot be served again", "kind", k.Kind, "err", err)
			}
		}
	}
}

// elsewhere is the APIService of a version that somebody else's server answers
// for; nil = there is none.
func (a *Aggregator) elsewhere(gv schema.GroupVersion) *apiregistrationv1.APIService {
	if a.set == nil {
		return nil
	}
	item := a.set.Get("", gv.Version+"."+gv.Group)
	if item == nil {
		return nil
	}
	if s := item.Object.(*apiregistrationv1.APIService); s.Spec.Service != nil {
		return s
	}
	return nil
}

// managed is the label of APIServices that belong to this server.
const managed = "kube-aggregator.kubernetes.io/automanaged"

// local lists the groups that this server serves itself.
func (a *Aggregator) local(ctx context.Context, user *inprocess.User) {
	want := map[string]*apiregistrationv1.APIService{}
	for _, k := range a.Catalog.All() {
		if slices.Contains(a.Yields, k) {
			continue
		}
		versions := []schema.GroupVersion{k.GroupVersion()}
		for i := range k.Shapes {
			versions = append(versions, k.Shapes[i].GroupVersion())
		}
		for _, gv := range versions {
			s := localService(gv, k.Encoding == api.JSON)
			if want[s.Name] == nil {
				want[s.Name] = s
			}
		}
	}
	a.set.Snapshot().Ascend("", "", "", func(i *cache.Item) bool {
		s := i.Object.(*apiregistrationv1.APIService)
		if want[s.Name] == nil && s.Labels[managed] != "" && s.Spec.Service == nil {
			if err := user.Delete(ctx, a.kind, "", s.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				a.Log.Warn("an APIService cannot be deleted", "name", s.Name, "err", err)
			}
		}
		if s.Spec.Service != nil || apiregistration.Available(s) != nil {
			delete(want, s.Name)
		}
		return true
	})
	for _, s := range want {
		made, err := user.Create(ctx, a.kind, s.DeepCopy(), "kube-apiserver", false)
		if apierrors.IsAlreadyExists(err) {
			made, err = user.Get(ctx, a.kind, "", s.Name)
		}
		if err == nil {
			now := made.DeepCopyObject().(*apiregistrationv1.APIService)
			setAvailable(now, true, "Local", "Local APIServices are always available")
			_, err = user.Update(ctx, a.kind, "status", now, "kube-apiserver", false)
		}
		if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) {
			a.Log.Warn("an APIService cannot be written", "name", s.Name, "err", err)
		}
	}
}

func localService(gv schema.GroupVersion, custom bool) *apiregistrationv1.APIService {
	s := &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: gv.Version + "." + gv.Group, Labels: map[string]string{managed: "onstart"}},
		Spec:       apiregistrationv1.APIServiceSpec{Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: 17000, VersionPriority: 15},
	}
	switch {
	case custom:
		s.Labels[managed], s.Spec.GroupPriorityMinimum, s.Spec.VersionPriority = "true", 1000, 100
	case gv.Group == "":
		s.Spec.GroupPriorityMinimum, s.Spec.VersionPriority = 18000, 1
	case gv.Group == "autoscaling" && gv.Version == "v2":
		s.Spec.VersionPriority = 30
	case strings.Contains(gv.Version, "beta"):
		s.Spec.VersionPriority = 9
	}
	return s
}

// setAvailable writes the condition; true = it was another.
func setAvailable(s *apiregistrationv1.APIService, ok bool, reason, message string) bool {
	c := apiregistrationv1.APIServiceCondition{
		Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: metav1.Now(),
	}
	if ok {
		c.Status = apiregistrationv1.ConditionTrue
	}
	old := apiregistration.Available(s)
	if old == nil {
		s.Status.Conditions = append(s.Status.Conditions, c)
		return true
	}
	if old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message {
		return false
	}
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	*old = c
	return true
}

// remote asks the servers of others whether they are there; it returns how many
// there are, and how many of them do not answer.
func (a *Aggregator) remote(ctx context.Context, user *inprocess.User) (known, failing int) {
	var all []*apiregistrationv1.APIService
	a.set.Snapshot().Ascend("", "", "", func(i *cache.Item) bool {
		if s := i.Object.(*apiregistrationv1.APIService); s.Spec.Service != nil {
			all = append(all, s)
		}
		return true
	})
	there := map[string]bool{}
	for _, s := range all {
		there[s.Name] = true
		srv := a.server(s)
		now := s.DeepCopy()
		reason, err := a.ask(ctx, srv)
		message := "all checks passed"
		if err != nil {
			message = err.Error()
			failing++
		}
		if setAvailable(now, err == nil, reason, message) {
			if _, err := user.Update(ctx, a.kind, "status", now, "kube-apiserver", false); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				a.Log.Warn("the status of an APIService cannot be written", "name", s.Name, "err", err)
			}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, srv := range a.servers {
		if !there[name] {
			srv.transport.CloseIdleConnections()
			delete(a.servers, name)
		}
	}
	return len(all), failing
}

// server behind an APIService, with connections that are kept.
func (a *Aggregator) server(s *apiregistrationv1.APIService) *server {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.servers[s.Name]
	if old != nil && old.of.UID == s.UID && old.of.Generation == s.Generation && string(old.of.Spec.CABundle) == string(s.Spec.CABundle) {
		old.of = s
		return old
	}
	to := s.Spec.Service
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: to.Name + "." + to.Namespace + ".svc",
		InsecureSkipVerify: s.Spec.InsecureSkipTLSVerify, GetClientCertificate: a.Certificate,
	}
	if len(s.Spec.CABundle) > 0 {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(s.Spec.CABundle)
	}
	srv := &server{of: s, transport: &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: true, IdleConnTimeout: 90 * time.Second,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			address, err := a.Hooks.Endpoint(to.Namespace, to.Name, port(to))
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, address)
		},
	}}
	srv.calls = a.Servers.Watch(srv.transport)
	a.servers[s.Name] = srv
	return srv
}

func port(to *apiregistrationv1.ServiceReference) int32 {
	if to.Port == nil {
		return 443
	}
	return *to.Port
}

// ask a server what it serves. The reason is the condition's.
func (a *Aggregator) ask(ctx context.Context, srv *server) (reason string, err error) {
	spec := srv.of.Spec
	if _, err := a.Hooks.Endpoint(spec.Service.Namespace, spec.Service.Name, port(spec.Service)); err != nil {
		reason = "MissingEndpoints"
		if strings.Contains(err.Error(), "not found") {
			reason = "ServiceNotFound"
		}
		return reason, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+spec.Service.Name+"."+spec.Service.Namespace+".svc/apis/"+spec.Group+"/"+spec.Version, nil)
	if err != nil {
		return "FailedDiscoveryCheck", err
	}
	r.Header.Set("Accept", "application/json")
	identify(r.Header, &request.User{Name: "system:kube-aggregator", Groups: []string{request.Masters}})
	answer, err := srv.calls.RoundTrip(r)
	if err != nil {
		return "FailedDiscoveryCheck", fmt.Errorf("failing or missing response from %s: %w", r.URL, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "FailedDiscoveryCheck", fmt.Errorf("failing or missing response from %s: bad status from %s: %d", r.URL, r.URL, answer.StatusCode)
	}
	var list metav1.APIResourceList
	if err := json.NewDecoder(io.LimitReader(answer.Body, 4<<20)).Decode(&list); err != nil {
		return "FailedDiscoveryCheck", err
	}
	a.mu.Lock()
	srv.resources = list.APIResources
	a.mu.Unlock()
	return "Passed", nil
}

// identify tells a server who makes a request.
func identify(h http.Header, u *request.User) {
	h.Set("X-Remote-User", u.Name)
	h["X-Remote-Group"] = u.Groups
	if u.UID != "" {
		h.Set("X-Remote-Uid", u.UID)
	}
	for key, values := range u.Extra {
		h["X-Remote-Extra-"+url.PathEscape(key)] = values
	}
}

// Serve passes a request on if another server is responsible for its path.
func (a *Aggregator) Serve(w http.ResponseWriter, r *http.Request) bool {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) < 3 || parts[0] != "apis" {
		return false
	}
	s := a.elsewhere(schema.GroupVersion{Group: parts[1], Version: parts[2]})
	if s == nil {
		return false
	}
	if c := apiregistration.Available(s); c != nil && c.Status != apiregistrationv1.ConditionTrue {
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return true
	}
	srv := a.server(s)
	host := s.Spec.Service.Name + "." + s.Spec.Service.Namespace + ".svc"
	proxy := &httputil.ReverseProxy{
		Transport:     srv.calls,
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "https", host, host
			for name := range p.Out.Header {
				if strings.HasPrefix(name, "X-Remote-") || strings.HasPrefix(name, "Impersonate-") {
					p.Out.Header.Del(name)
				}
			}
			p.Out.Header.Del("Authorization")
			p.SetXForwarded()
			if u := request.UserFrom(r.Context()); u != nil {
				identify(p.Out.Header, u)
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "error trying to reach service: "+err.Error(), http.StatusServiceUnavailable)
		},
	}
	proxy.ServeHTTP(w, r)
	return true
}

// Documents are where the OpenAPI documents of other servers are.
func (a *Aggregator) Documents() (all []openapi.Other) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, srv := range a.servers {
		// What is stored now, not what the server was last asked for: whoever has
		// seen the condition finds the documents.
		of := a.elsewhere(schema.GroupVersion{Group: srv.of.Spec.Group, Version: srv.of.Spec.Version})
		if of == nil || of.UID != srv.of.UID {
			continue
		}
		if c := apiregistration.Available(of); c == nil || c.Status != apiregistrationv1.ConditionTrue {
			continue
		}
		spec := srv.of.Spec
		root := "https://" + spec.Service.Name + "." + spec.Service.Namespace + ".svc"
		all = append(all, openapi.Other{
			GroupVersion: schema.GroupVersion{Group: spec.Group, Version: spec.Version},
			Key:          fmt.Sprintf("%s %s %p", name, srv.of.UID, srv.transport),
			Get: func(ctx context.Context, path string, header http.Header) (*http.Response, error) {
				r, err := http.NewRequestWithContext(ctx, http.MethodGet, root+path, nil)
				if err != nil {
					return nil, err
				}
				r.Header = header.Clone()
				identify(r.Header, &request.User{Name: "system:aggregator", Groups: []string{request.Authenticated}})
				return srv.calls.RoundTrip(r)
			},
		})
	}
	return all
}

// Groups are what other servers serve, for discovery.
func (a *Aggregator) Groups() (all []apidiscoveryv2.APIGroupDiscovery) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, srv := range a.servers {
		if len(srv.resources) == 0 {
			continue
		}
		v := apidiscoveryv2.APIVersionDiscovery{Version: srv.of.Spec.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
		for _, r := range srv.resources {
			add(&v, r, schema.GroupVersion{Group: srv.of.Spec.Group, Version: srv.of.Spec.Version})
		}
		found := false
		for i := range all {
			if all[i].Name == srv.of.Spec.Group {
				all[i].Versions, found = append(all[i].Versions, v), true
			}
		}
		if !found {
			all = append(all, apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: srv.of.Spec.Group}, Versions: []apidiscoveryv2.APIVersionDiscovery{v}})
		}
	}
	return all
}

// add a resource, or a subresource of one that is there already.
func add(v *apidiscoveryv2.APIVersionDiscovery, r metav1.APIResource, gv schema.GroupVersion) {
	kind := &metav1.GroupVersionKind{Group: gv.Group, Version: gv.Version, Kind: r.Kind}
	if r.Group != "" {
		kind.Group, kind.Version = r.Group, r.Version
	}
	if of, sub, ok := strings.Cut(r.Name, "/"); ok {
		for i := range v.Resources {
			if v.Resources[i].Resource == of {
				v.Resources[i].Subresources = append(v.Resources[i].Subresources, apidiscoveryv2.APISubresourceDiscovery{Subresource: sub, ResponseKind: kind, Verbs: r.Verbs})
			}
		}
		return
	}
	scope := apidiscoveryv2.ScopeCluster
	if r.Namespaced {
		scope = apidiscoveryv2.ScopeNamespace
	}
	v.Resources = append(v.Resources, apidiscoveryv2.APIResourceDiscovery{
		Resource: r.Name, ResponseKind: kind, Scope: scope, SingularResource: r.SingularName, Verbs: r.Verbs, ShortNames: r.ShortNames, Categories: r.Categories,
	})
}
