package load

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Form in which everything is listed.
type Form struct {
	Name   string
	accept string
	limit  int  // objects of a page, 0 = all
	gzip   bool // answers are compressed, which a server may not do for its own machine
}

// Forms that are tried.
func Forms() []Form {
	return []Form{
		{"in pages of 500", jsonType, 500, false},
		{"as JSON", jsonType, 0, false},
		{"as protobuf", "application/vnd.kubernetes.protobuf", 0, false},
		{"as JSON, compressed", jsonType, 0, true},
	}
}

// Crowd lists all ConfigMaps with many clients at once, each with a connection of its
// own, and calls look again and again meanwhile.
func (l *Scale) Crowd(ctx context.Context, t *Target, clients int, f Form, look func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	failures := make([]error, clients)
	var compressed bool
	for i := range clients {
		wg.Go(func() {
			own := *t
			own.client = &http.Client{Transport: t.client.Transport.(*http.Transport).Clone()}
			defer own.Close()
			z, err := own.listAll(ctx, f)
			failures[i] = err
			if i == 0 {
				compressed = z
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		select {
		case <-tick.C:
			look()
			continue
		case <-done:
		}
		tick.Stop()
		break
	}
	if f.gzip && !compressed {
		failures = append(failures, errors.New("the answers were not compressed"))
	}
	return errors.Join(failures...)
}

// listAll reads all pages and throws them away.
func (t *Target) listAll(ctx context.Context, f Form) (compressed bool, err error) {
	for next := ""; ; {
		path := scaleMaps
		if f.limit > 0 {
			path += fmt.Sprintf("?limit=%d&continue=%s", f.limit, next)
		}
		q, err := http.NewRequestWithContext(ctx, "GET", t.Server+path, nil)
		if err != nil {
			return false, err
		}
		q.Header.Set("Accept", f.accept)
		if f.gzip {
			q.Header.Set("Accept-Encoding", "gzip")
		}
		answer, err := t.client.Do(q)
		if err != nil {
			return false, err
		}
		head, err := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
		if err == nil {
			_, err = io.Copy(io.Discard, answer.Body)
		}
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK {
			return false, errors.Join(fmt.Errorf("GET %s: %s", path, answer.Status), err)
		}
		if f.limit == 0 {
			return answer.Header.Get("Content-Encoding") == "gzip", nil
		}
		if next = continues(string(head)); next == "" {
			return false, nil
		}
	}
}

// continues is the token in the beginning of a list, "" = it is the last page.
func continues(head string) string {
	_, rest, ok := strings.Cut(head, `"continue":`)
	if !ok || strings.Contains(head[:len(head)-len(rest)], `"items"`) {
		return ""
	}
	var token string
	_ = json.NewDecoder(strings.NewReader(rest)).Decode(&token)
	return token
}

// From is the same target, reached from an address of this machine at another.
func (t *Target) From(from, to string) *Target {
	c := t.client.Transport.(*http.Transport).Clone()
	c.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext
	c.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	c.TLSClientConfig = c.TLSClientConfig.Clone()
	c.TLSClientConfig.ServerName = "localhost"
	_, port, _ := strings.Cut(strings.TrimPrefix(t.Server, "https://"), ":")
	return &Target{Server: "https://" + net.JoinHostPort(to, port), client: &http.Client{Transport: c}, Log: t.Log}
}
