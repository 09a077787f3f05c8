// Package hook calls webhooks: HTTPS servers that answer a review with a review,
// behind a URL or a Service of the cluster.
package hook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
	"github.com/proa-dev/proa/internal/cache"
)

// Target is where a webhook is: behind a URL, or else a Service.
type Target struct {
	Name     string // for errors
	URL      string
	Service  *Service
	CABundle []byte // PEM; none = the roots of this machine
}

// Service of the cluster.
type Service struct {
	Namespace, Name, Path string
	Port                  int32
}

// Client calls webhooks. Connections are kept and shared.
type Client struct {
	// Servers looks at the certificates that are shown; nil = nobody does.
	Servers *metrics.Servers

	services *cache.Typed[*corev1.Service]
	slices   cache.Reader

	mu      sync.Mutex
	clients map[[sha256.Size]byte]*http.Client
}

// New client that finds Services and their endpoints in a cache.
func New(catalog *api.Catalog, of func(*api.Kind) cache.Reader) *Client {
	c := &Client{clients: map[[sha256.Size]byte]*http.Client{}}
	if k, ok := catalog.Type(&corev1.Service{}); ok {
		c.services = &cache.Typed[*corev1.Service]{Reader: of(k)}
	}
	if k, ok := catalog.Type(&discoveryv1.EndpointSlice{}); ok {
		c.slices = of(k)
	}
	return c
}

// maxAnswer is how much a webhook may say.
const maxAnswer = 6 << 20

// Call posts ask as JSON and reads the answer into into.
func (c *Client) Call(ctx context.Context, to Target, ask, into any) error {
	body, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	h, err := c.client(to)
	if err != nil {
		return err
	}
	where, err := address(ctx, to)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, where, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, */*")
	r.Header.Set("User-Agent", "kube-apiserver-admission")
	answer, err := h.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return err
	case len(text) > maxAnswer:
		return fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("the server responded with the status code %d but did not return more information: %s", answer.StatusCode, bytes.TrimSpace(text[:min(len(text), 512)]))
	}
	return json.Unmarshal(text, into)
}

// address of a target: its path is cleaned, as that of any request is, since who
// writes "https://host//path" is understood; webhooks are told how long they have.
func address(ctx context.Context, to Target) (string, error) {
	u, err := url.Parse(to.URL)
	if err != nil {
		return "", err
	}
	if s := to.Service; s != nil {
		u = &url.URL{Scheme: "https", Host: net.JoinHostPort(s.Name+"."+s.Namespace+".svc", strconv.Itoa(int(s.Port))), Path: s.Path}
	}
	u.Path, u.RawPath = path.Join("/", u.Path), ""
	if deadline, ok := ctx.Deadline(); ok {
		q := u.Query()
		q.Set("timeout", max(time.Until(deadline).Round(time.Second), time.Second).String())
		u.RawQuery = q.Encode()
	}
	return u.String(), nil
}

// client for a target: one for all that trust the same and are found the same way.
func (c *Client) client(to Target) (*http.Client, error) {
	key := to.CABundle
	if s := to.Service; s != nil {
		key = fmt.Appendf(nil, "%s/%s/%d %s", s.Namespace, s.Name, s.Port, to.CABundle)
	}
	sum := sha256.Sum256(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.clients[sum]; h != nil {
		return h, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(to.CABundle) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(to.CABundle) {
			return nil, errors.New("unable to load root certificates: the CA bundle holds none")
		}
	}
	t := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 25, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second}
	if s := to.Service; s != nil {
		config.ServerName = s.Name + "." + s.Namespace + ".svc"
		t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			address, err := c.Endpoint(s.Namespace, s.Name, s.Port)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, address)
		}
	}
	if len(c.clients) > 256 { // of configurations that are gone, most likely
		clear(c.clients)
	}
	h := &http.Client{Transport: c.Servers.Watch(t), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	c.clients[sum] = h
	return h, nil
}

// Endpoint is the address of a ready endpoint of a Service's port.
func (c *Client) Endpoint(namespace, name string, port int32) (string, error) {
	if c.services == nil || c.slices == nil {
		return "", errors.New("Services are not served")
	}
	svc, ok := c.services.Get(namespace, name)
	if !ok {
		return "", fmt.Errorf("service %q not found", name)
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return net.JoinHostPort(svc.Spec.ExternalName, strconv.Itoa(int(port))), nil
	}
	portName, found := "", false
	for _, p := range svc.Spec.Ports {
		if p.Port == port {
			portName, found = p.Name, true
		}
	}
	if !found {
		return "", fmt.Errorf("no service port %d found for service %q", port, name)
	}
	var ready []string
	c.slices.Snapshot().Ascend(namespace, "", "", func(i *cache.Item) bool {
		s := i.Object.(*discoveryv1.EndpointSlice)
		if s.Labels[discoveryv1.LabelServiceName] != name {
			return true
		}
		for _, p := range s.Ports {
			if p.Port == nil || (p.Name == nil && portName != "") || (p.Name != nil && *p.Name != portName) {
				continue
			}
			for _, e := range s.Endpoints {
				if len(e.Addresses) > 0 && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
					ready = append(ready, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))))
				}
			}
		}
		return true
	})
	if len(ready) == 0 {
		return "", fmt.Errorf("no endpoints available for service %q", name)
	}
	return ready[rand.IntN(len(ready))], nil
}
