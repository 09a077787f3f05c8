// Package load drives a Kubernetes API server: any, over plain HTTPS, without a
// client library, so that the server is measured and not the client. The loads
// themselves are in api.go (requests), sched.go (pods to be bound) and pods.go
// (pods that run).
package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Target is an API server.
type Target struct {
	Server string
	client *http.Client
	// Log says how far a load is.
	Log func(format string, args ...any)
}

// Media types of requests.
const (
	jsonType  = "application/json"
	mergeType = "application/merge-patch+json"
)

// Open the target of a kubeconfig. Connections are HTTP/1.1, as many as there
// are requests at a time, so that both servers have the same work.
func Open(kubeconfig string, log func(format string, args ...any)) (*Target, error) {
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	security, err := rest.TLSConfigFor(c)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		TLSClientConfig: security, MaxIdleConnsPerHost: 1000, DisableCompression: true,
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
	return &Target{Server: c.Host, client: &http.Client{Transport: transport}, Log: log}, nil
}

// Close the connections that are left open.
func (t *Target) Close() { t.client.CloseIdleConnections() }

// request that a load makes.
type request struct {
	method, path string
	content      string // media type of the body
	accept       string
	body         []byte
}

// do a request and throw the answer away; size is that of its body.
func (t *Target) do(ctx context.Context, r request, want ...int) (size int64, err error) {
	answer, err := t.send(ctx, r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	for _, code := range want {
		if answer.StatusCode == code {
			return io.Copy(io.Discard, answer.Body)
		}
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 500))
	if err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("%s %s: %s: %s", r.method, r.path, answer.Status, text)
}

// read a JSON answer.
func (t *Target) read(ctx context.Context, path string, into any) error {
	answer, err := t.send(ctx, request{method: "GET", path: path})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, answer.Status)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

func (t *Target) send(ctx context.Context, r request) (*http.Response, error) {
	q, err := http.NewRequestWithContext(ctx, r.method, t.Server+r.path, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	if r.content != "" {
		q.Header.Set("Content-Type", r.content)
	}
	if r.accept != "" {
		q.Header.Set("Accept", r.accept)
	}
	return t.client.Do(q)
}

// Metrics that the server tells, as text.
func (t *Target) Metrics(ctx context.Context) (string, error) {
	answer, err := t.send(ctx, request{method: "GET", path: "/metrics"})
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}

// watch calls event for each line of a watch until it returns false or the
// context ends. opened is called when the server has answered.
func (t *Target) watch(ctx context.Context, path string, opened func(), event func(line []byte) bool) error {
	answer, err := t.send(ctx, request{method: "GET", path: path})
	if opened != nil {
		opened()
	}
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(make([]byte, 1<<16), 1<<24)
	for lines.Scan() {
		if !event(lines.Bytes()) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the watch of %s: %w", path, err)
	}
	return fmt.Errorf("%w of %s", errWatchEnded, path)
}

// errWatchEnded is the error of a watch that the server ended, as it does with
// one whose client is too slow.
var errWatchEnded = errors.New("the server ended the watch")

// namespace makes a namespace and its default service account, without which no
// pod can be made: an API server that runs without controllers has nobody else
// for it.
func (t *Target) namespace(ctx context.Context, name string) error {
	if err := t.namespaceOnly(ctx, name); err != nil {
		return err
	}
	account := []byte(`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}`)
	_, err := t.do(ctx, request{"POST", "/api/v1/namespaces/" + name + "/serviceaccounts", jsonType, "", account}, 201, 409)
	return err
}

func (t *Target) namespaceOnly(ctx context.Context, name string) error {
	object := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q}}`, name)
	_, err := t.do(ctx, request{"POST", "/api/v1/namespaces", jsonType, "", object}, 201, 409)
	return err
}

// until a condition holds; it is asked every 100 ms.
func until(ctx context.Context, limit time.Duration, what string, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		ok, err := holds()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s: not so after %s", what, limit), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
