package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

// Results of a probe.
const (
	Success = "successful"
	Failure = "failed"

	warn      = "\x00" // begins the message of a success that deserves a warning
	userAgent = "kube-probe/1.36"
	maxBody   = 10 << 10
)

var errRedirect = errors.New("redirected to another host")

// Run a probe once.
func (m *Manager) Run(ctx context.Context, pr *v1.Probe, t Target) (result, msg string) {
	timeout := time.Duration(max(pr.TimeoutSeconds, 1)) * time.Second
	switch h := pr.ProbeHandler; {
	case h.Exec != nil:
		return m.exec(ctx, h.Exec.Command, t, timeout)
	case h.HTTPGet != nil:
		req, err := request(ctx, h.HTTPGet, t, userAgent)
		if err != nil {
			return Failure, err.Error()
		}
		return fetch(req, timeout)
	case h.TCPSocket != nil:
		return dial(ctx, h.TCPSocket, t, timeout)
	case h.GRPC != nil:
		return check(ctx, h.GRPC, t, timeout)
	}
	return Failure, "probe has no handler"
}

func (m *Manager) exec(ctx context.Context, cmd []string, t Target, timeout time.Duration) (string, string) {
	out, code, err := m.rt.ExecSync(ctx, t.ID, expand(cmd, t.Container), timeout)
	switch {
	case runtime.IsTimeout(err):
		return Failure, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(cmd, " "), timeout)
	case err != nil:
		return Failure, fmt.Sprintf("rpc error: %v", runtime.Message(err))
	case code != 0:
		return Failure, string(out[:min(len(out), maxBody)])
	}
	return Success, ""
}

// expand $(VAR) by the variables whose values stand in the container's env.
func expand(cmd []string, c *v1.Container) []string {
	pairs := []string{}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			pairs = append(pairs, "$("+e.Name+")", e.Value)
		}
	}
	r := strings.NewReplacer(pairs...)
	out := make([]string, len(cmd))
	for i, s := range cmd {
		out[i] = r.Replace(s)
	}
	return out
}

// port by number, or by the name of one of the container's ports.
func port(p intstr.IntOrString, c *v1.Container) (int, error) {
	n := p.IntValue()
	if p.Type == intstr.String {
		for _, cp := range c.Ports {
			if cp.Name == p.StrVal {
				n = int(cp.ContainerPort)
			}
		}
	}
	if n <= 0 || n > 65535 {
		return 0, fmt.Errorf("invalid port number: %v", p.String())
	}
	return n, nil
}

func request(ctx context.Context, a *v1.HTTPGetAction, t Target, agent string) (*http.Request, error) {
	n, err := port(a.Port, t.Container)
	if err != nil {
		return nil, err
	}
	host := a.Host
	if host == "" {
		host = t.IP
	}
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}
	u.Scheme, u.Host = strings.ToLower(string(a.Scheme)), net.JoinHostPort(host, strconv.Itoa(n))
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	if !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", agent)
	req.Header.Set("Accept", "*/*")
	for _, h := range a.HTTPHeaders { // those given replace the usual ones
		if name := http.CanonicalHeaderKey(h.Name); name == "Host" {
			req.Host = h.Value
		} else {
			req.Header.Del(name)
		}
	}
	for _, h := range a.HTTPHeaders {
		switch name := http.CanonicalHeaderKey(h.Name); {
		case name == "Host":
		case h.Value == "" && (name == "Accept" || name == "User-Agent"):
			req.Header[name] = []string{""}
		default:
			req.Header.Add(name, h.Value)
		}
	}
	return req, nil
}

func httpClient(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // a probe asks whether it answers, not who it is
			DisableKeepAlives: true, DisableCompression: true,
			DialContext: (&net.Dialer{Timeout: timeout}).DialContext,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Hostname() != via[0].URL.Hostname() {
				return errRedirect
			}
			if len(via) >= 10 {
				return errors.New("stopped after 10 redirects")
			}
			return nil
		},
	}
}

func fetch(req *http.Request, timeout time.Duration) (string, string) {
	began := time.Now()
	res, err := httpClient(timeout).Do(req)
	if errors.Is(err, errRedirect) {
		return Success, warn + "Probe terminated redirects"
	}
	if err != nil {
		return Failure, err.Error()
	}
	defer res.Body.Close()
	if time.Since(began) >= timeout { // an answer to our hanging up
		return Failure, fmt.Sprintf("Get %q: context deadline exceeded (Client.Timeout exceeded while awaiting headers)", req.URL)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxBody)); err != nil {
		return Failure, err.Error()
	}
	if res.StatusCode < 200 || res.StatusCode >= 400 {
		return Failure, fmt.Sprintf("HTTP probe failed with statuscode: %d", res.StatusCode)
	}
	return Success, ""
}

func dial(ctx context.Context, a *v1.TCPSocketAction, t Target, timeout time.Duration) (string, string) {
	n, err := port(a.Port, t.Container)
	if err != nil {
		return Failure, err.Error()
	}
	host := a.Host
	if host == "" {
		host = t.IP
	}
	c, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(n)))
	if err != nil {
		return Failure, err.Error()
	}
	_ = c.Close()
	return Success, ""
}

func check(ctx context.Context, a *v1.GRPCAction, t Target, timeout time.Duration) (string, string) {
	service := ""
	if a.Service != nil {
		service = *a.Service
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addr := net.JoinHostPort(t.IP, strconv.Itoa(int(a.Port)))
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithUserAgent(userAgent),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return Failure, fmt.Sprintf("error: gRPC probe of %s: %v", addr, err)
	}
	defer conn.Close()
	res, err := health.NewHealthClient(conn).Check(metadata.NewOutgoingContext(ctx, metadata.MD{}), &health.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
	switch status.Code(err) {
	case codes.OK:
	case codes.Unimplemented:
		return Failure, fmt.Sprintf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", runtime.Message(err))
	case codes.DeadlineExceeded:
		return Failure, fmt.Sprintf("timeout: failed to connect service %q within %v: %v", addr, timeout, runtime.Message(err))
	default:
		return Failure, fmt.Sprintf("error: health rpc probe failed: %v", err)
	}
	if res.GetStatus() != health.HealthCheckResponse_SERVING {
		return Failure, fmt.Sprintf("service unhealthy (responded with %q)", res.GetStatus())
	}
	return Success, ""
}

// Hook runs a lifecycle handler. msg is for the container's status; errors of
// commands carry their output.
func (m *Manager) Hook(ctx context.Context, h *v1.LifecycleHandler, t Target) error {
	switch {
	case h.Exec != nil:
		out, code, err := m.rt.ExecSync(ctx, t.ID, h.Exec.Command, 0)
		if err != nil {
			return errors.New(runtime.Message(err))
		}
		if code != 0 {
			return fmt.Errorf("command '%s' exited with %d: %s", strings.Join(h.Exec.Command, " "), code, out)
		}
		return nil
	case h.HTTPGet != nil:
		return m.hookHTTP(ctx, h.HTTPGet, t)
	case h.TCPSocket != nil:
		result, msg := dial(ctx, h.TCPSocket, t, 30*time.Second)
		if result != Success {
			return errors.New(msg)
		}
		return nil
	case h.Sleep != nil:
		wait := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		return nil
	}
	return fmt.Errorf("invalid handler: %v", h)
}

func (m *Manager) hookHTTP(ctx context.Context, a *v1.HTTPGetAction, t Target) error {
	req, err := request(ctx, a, t, "kube-lifecycle/1.36")
	if err != nil {
		return err
	}
	res, err := httpClient(0).Do(req)
	if err != nil && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		req.URL.Scheme = "http" // hooks of old were sent in the clear whatever they said
		req.Header.Del("Authorization")
		res, err = httpClient(0).Do(req)
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxBody))
	if res.StatusCode >= 400 {
		return fmt.Errorf("HTTP hook failed with statuscode: %d", res.StatusCode)
	}
	return nil
}
