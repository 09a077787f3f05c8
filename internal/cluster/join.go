package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/proa-dev/proa/internal/cluster/pki"
)

// membership is what a node has once it belongs to a cluster: whom it trusts,
// its certificates, and the cluster's parameters.
type membership struct {
	Params
	server    string // https://HOST:PORT
	roots     *x509.CertPool
	authority string // file with the CA
	client    *pki.Leaf
	network   *pki.Leaf // of the parts that serve the node's network; nil where they call in process
	serving   *pki.Leaf
	http      *http.Client // to the server, as the node
}

// join makes a node a member. One that was a member before needs no token: its
// certificate says who it is.
func (c *Config) join(ctx context.Context) (*membership, error) {
	a := c.Agent
	u, err := url.Parse(a.Server)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("--server %q: write https://HOST:6443", a.Server)
	}
	m := &membership{server: "https://" + u.Host, authority: c.agentDir("pki/ca.crt")}
	if err := c.trust(ctx, m, u.Hostname()); err != nil {
		return nil, err
	}
	if m.client, err = c.nodeLeaf(ctx, m, "client", certificateRequest{Node: a.NodeName}); err != nil {
		return nil, err
	}
	m.http = m.calls(m.client)
	if m.network, err = c.nodeLeaf(ctx, m, "network", certificateRequest{Node: a.NodeName, Network: true}); err != nil {
		return nil, err
	}
	serving := certificateRequest{Node: a.NodeName, Serving: true, IPs: []netip.Addr{a.NodeIP}}
	if m.serving, err = c.nodeLeaf(ctx, m, "kubelet", serving); err != nil {
		return nil, err
	}
	return m, m.getParams(ctx)
}

// trust finds the cluster's authority: kept from before, or by the token's hash.
func (c *Config) trust(ctx context.Context, m *membership, host string) error {
	data, err := os.ReadFile(m.authority)
	if errors.Is(err, os.ErrNotExist) {
		data, err = c.fetchAuthority(ctx, m.server, host)
		if err == nil {
			err = pki.WriteFile(m.authority, data, 0o644)
		}
	}
	if err != nil {
		return err
	}
	m.roots = x509.NewCertPool()
	if !m.roots.AppendCertsFromPEM(data) {
		return fmt.Errorf("%s holds no certificate", m.authority)
	}
	return nil
}

func (c *Config) fetchAuthority(ctx context.Context, server, host string) ([]byte, error) {
	if c.Agent.Token == "" {
		return nil, errors.New(`the first time, a node needs a token: --token TOKEN, which "proa token create" on a server prints`)
	}
	token, err := pki.ParseToken(c.Agent.Token)
	if err != nil {
		return nil, err
	}
	var found *x509.Certificate
	t := &http.Transport{TLSClientConfig: token.Trust(host, func(ca *x509.Certificate) { found = ca })}
	defer t.CloseIdleConnections()
	var p Params
	if err := call(ctx, &http.Client{Transport: t, Timeout: 30 * time.Second}, http.MethodGet, server+paramsPath, token.Bearer(), nil, &p); err != nil {
		return nil, err
	}
	certs, err := pki.ParseCerts([]byte(p.Authority))
	if err != nil {
		return nil, err
	}
	if !certs[0].Equal(found) {
		return nil, errors.New("the server names another authority than the one that signed its certificate")
	}
	return []byte(p.Authority), nil
}

// nodeLeaf is a certificate that the server signs: for the node's certificate
// when it has one that is good, else for the token.
func (c *Config) nodeLeaf(ctx context.Context, m *membership, name string, want certificateRequest) (*pki.Leaf, error) {
	issue := func(ctx context.Context, request []byte) ([]byte, error) {
		want.Request = string(request)
		body, err := json.Marshal(want)
		if err != nil {
			return nil, err
		}
		var bearer string
		if m.client == nil || time.Now().After(m.client.Certificate().Leaf.NotAfter) {
			token, err := pki.ParseToken(c.Agent.Token)
			if err != nil {
				return nil, err
			}
			bearer = token.Bearer()
		}
		var crt []byte
		err = call(ctx, m.calls(m.client), http.MethodPost, m.server+certificatePath, bearer, body, &crt)
		return crt, err
	}
	return pki.OpenLeaf(ctx, c.agentDir("pki/"+name), m.roots, want.profile(), issue)
}

// calls the server, as the holder of a certificate if there is one.
func (m *membership) calls(as *pki.Leaf) *http.Client {
	t := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: m.roots}
	if as != nil {
		t.GetClientCertificate = as.Dial
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: t, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
	}}
}

// getParams asks the server for the cluster's parameters until it answers.
func (m *membership) getParams(ctx context.Context) error {
	return call(ctx, m.http, http.MethodGet, m.server+paramsPath, "", nil, &m.Params)
}

// call sends body and decodes the answer as JSON, or into a *[]byte as it is.
func call(ctx context.Context, h *http.Client, method, url, bearer string, body []byte, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := h.Do(r)
	if err != nil {
		return fmt.Errorf("the server does not answer: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf(`the server does not accept the token or certificate (it may have expired: "proa token create" on a server prints a new token)`)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the server says: %s", strings.TrimSpace(string(data)))
	}
	if raw, ok := into.(*[]byte); ok {
		*raw = data
		return nil
	}
	return json.Unmarshal(data, into)
}

// localMember is the node in the server's own process: nobody need be asked.
func (c *Config) localMember(x *certificates, server string, p Params) (*membership, error) {
	m := &membership{Params: p, server: server, roots: x.ca.Pool(), authority: c.pki("ca.crt")}
	var err error
	client := certificateRequest{Node: c.Agent.NodeName}
	if m.client, err = x.ca.Leaf(c.agentDir("pki/client"), client.profile()); err != nil {
		return nil, err
	}
	serving := certificateRequest{Node: c.Agent.NodeName, Serving: true, IPs: []netip.Addr{c.Agent.NodeIP}}
	if m.serving, err = x.ca.Leaf(c.agentDir("pki/kubelet"), serving.profile()); err != nil {
		return nil, err
	}
	m.http = m.calls(m.client)
	return m, nil
}
