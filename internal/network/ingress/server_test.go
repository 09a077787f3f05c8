package ingress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
)

// serving is a server with one rule, for everything, to the backend "web".
type serving struct {
	*Server
	t        testing.TB
	url      string
	https    string
	protocol Protocol
	options  Options
	access   chan Access
}

var webKey = BackendKey{Namespace: "default", Service: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}

func serve(t testing.TB, protocol Protocol, options Options) *serving {
	t.Helper()
	s := &serving{t: t, protocol: protocol, options: options, access: make(chan Access, 1000)}
	listen := func() net.Listener {
		l, err := Listen("127.0.0.1:0", "--http-port")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	cfg := Config{HTTP: listen(), HTTPS: listen(), Log: slog.New(slog.DiscardHandler), Observe: func(a Access) {
		select {
		case s.access <- a:
		default:
		}
	}}
	s.url, s.https = "http://"+cfg.HTTP.Addr().String(), "https://"+cfg.HTTPS.Addr().String()
	s.Server = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !Closed(err) {
			t.Error(err)
		}
	})
	return s
}

func (s *serving) endpoints(addrs ...string) { s.set(Backend{Protocol: s.protocol, Endpoints: addrs}) }

func (s *serving) set(b Backend) {
	s.Set(context.Background(), &Table{
		Hosts: map[string][]Rule{"": {{Path: "/", To: webKey, Options: s.options,
			Ingress: types.NamespacedName{Namespace: "default", Name: "ing"}}}},
		Backends: map[BackendKey]Backend{webKey: b},
	})
}

// pod is an HTTP server at an address of its own.
func pod(t testing.TB, h http.HandlerFunc) (addr string, stop func()) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), s.Close
}

func get(t testing.TB, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func says(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, s) }
}

func echo(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	w.Write(body)
}

// gone is an address that refuses connections.
func gone(t testing.TB) string {
	addr, stop := pod(t, says(""))
	stop()
	return addr
}

func TestRequestArrivesAsItWasSent(t *testing.T) {
	s := serve(t, HTTP, Options{})
	addr, _ := pod(t, func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		h := req.Header
		fmt.Fprint(w, req.Method, " ", req.RequestURI, " ", req.Host, " ", string(body), " ", h["X-Forwarded-For"], h["X-Forwarded-Proto"], h["X-Forwarded-Host"], h["User-Agent"], h["X-Mine"])
		w.Header().Set("X-Late", "t")
	})
	s.endpoints(addr)
	req, _ := http.NewRequest("POST", s.url+"/a%2Fb/?q=1;2&z", strings.NewReader("hello"))
	req.Host = "shop.example.com"
	req.Header = http.Header{"X-Mine": {"1"}, "X-Forwarded-For": {"6.6.6.6"}, "User-Agent": {""}, "Connection": {"X-Hop"}, "X-Hop": {"1"}}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(resp.Body)
	if want := "POST /a%2Fb/?q=1;2&z shop.example.com hello [127.0.0.1] [http] [shop.example.com] [] [1]"; string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if a := <-s.access; a.Status != 200 || a.Bytes != int64(len(got)) || a.Endpoint != addr || a.Rule.To != webKey {
		t.Errorf("access: %+v", a)
	}
}

func TestUpgrade(t *testing.T) {
	s := serve(t, HTTP, Options{})
	addr, _ := pod(t, func(w http.ResponseWriter, req *http.Request) {
		c, rw, _ := w.(http.Hijacker).Hijack()
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := rw.ReadString('\n')
		io.WriteString(c, "you said "+line)
	})
	s.endpoints(gone(t), addr)
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	io.WriteString(c, "hi\n")
	if line, _ := r.ReadString('\n'); line != "you said hi\n" {
		t.Errorf("%q", line)
	}
}

func TestEventStreamIsNotHeldBack(t *testing.T) {
	s := serve(t, HTTP, Options{})
	next := make(chan bool)
	addr, _ := pod(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 2 {
			io.WriteString(w, "data: x\n\n")
			w.(http.Flusher).Flush()
			<-next
		}
	})
	s.endpoints(addr)
	resp, err := http.Get(s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 9)
	for range 2 {
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != "data: x\n\n" {
			t.Fatalf("%q %v", buf, err)
		}
		next <- true
	}
}

func TestHTTP2ToTheEndpointWithTrailers(t *testing.T) {
	s := serve(t, H2C, Options{})
	backend := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		message := make([]byte, 7)
		io.ReadFull(req.Body, message)
		w.Write(message)
		w.(http.Flusher).Flush()
		io.Copy(io.Discard, req.Body)
		w.Header().Set("Grpc-Status", "0")
	})}
	backend.Protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go backend.Serve(l)
	defer backend.Close()
	s.endpoints(l.Addr().String())
	client := &http.Transport{Protocols: new(http.Protocols)}
	client.Protocols.SetUnencryptedHTTP2(true)
	defer client.CloseIdleConnections()
	r, w := io.Pipe()
	req, _ := http.NewRequest("POST", s.url+"/pkg.Service/Method", r)
	req.Header.Set("Te", "trailers")
	go w.Write([]byte("message"))
	resp, err := client.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 7)
	if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != "message" {
		t.Fatalf("the stream is held back: %q %v", buf, err)
	}
	w.Close()
	io.Copy(io.Discard, resp.Body)
	if resp.ProtoMajor != 2 || resp.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("%s, trailer %v", resp.Proto, resp.Trailer)
	}
}

func TestWhatWasNeverSentIsSentElsewhere(t *testing.T) {
	s := serve(t, HTTP, Options{})
	addr, _ := pod(t, echo)
	for _, size := range []int{0, 5, bufferedBody + 1} {
		s.endpoints(gone(t), gone(t), addr)
		for range 3 {
			body := strings.Repeat("x", size)
			resp, err := http.Post(s.url, "text/plain", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := io.ReadAll(resp.Body); string(got) != body || resp.StatusCode != 200 {
				t.Errorf("size %d: %d, %d bytes", size, resp.StatusCode, len(got))
			}
		}
	}
}

func TestRepeatsOnlyWhatMayBe(t *testing.T) {
	for method, want := range map[string]int{"GET": 200, "PUT": 200, "POST": 502} {
		t.Run(method, func(t *testing.T) {
			s := serve(t, HTTP, Options{})
			var seen atomic.Int32
			dies, _ := pod(t, func(w http.ResponseWriter, req *http.Request) {
				seen.Add(1)
				c, _, _ := w.(http.Hijacker).Hijack()
				c.Close()
			})
			good, _ := pod(t, says("ok"))
			s.endpoints(dies, good)
			for range 4 { // both get their turn
				before := seen.Load()
				req, _ := http.NewRequest(method, s.url, strings.NewReader("body"))
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				if met := seen.Load() - before; met > 1 || met == 1 && resp.StatusCode != want || met == 0 && resp.StatusCode != 200 {
					t.Errorf("%d after meeting the dying endpoint %d times", resp.StatusCode, met)
				}
			}
			if seen.Load() == 0 {
				t.Error("the dying endpoint was never asked")
			}
		})
	}
}

func TestAnEndpointThatRefusesIsAvoided(t *testing.T) {
	s := serve(t, HTTP, Options{})
	addr, _ := pod(t, says("ok"))
	s.endpoints(gone(t), addr)
	attempts := 0
	for range 10 {
		get(t, s.url)
		attempts += (<-s.access).Attempts
	}
	if attempts != 11 {
		t.Errorf("10 requests took %d attempts, want 11", attempts)
	}
}

func TestLeastBusyEndpoint(t *testing.T) {
	s := serve(t, HTTP, Options{})
	release := make(chan bool)
	slow, _ := pod(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	fast, _ := pod(t, says("fast"))
	s.endpoints(slow)
	go http.Get(s.url)
	b := s.force.Load().backends[webKey]
	wait(t, func() bool { return (*b.all.Load())[0].open.Load() == 1 })
	s.endpoints(slow, fast)
	for range 5 {
		if _, got := get(t, s.url); got != "fast" {
			t.Fatalf("%q", got)
		}
	}
}

func wait(t testing.TB, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !cond(); {
		if time.Now().After(end) {
			t.Fatal("did not come true in 5 s")
		}
		<-time.After(time.Millisecond)
	}
}

func TestAnEndpointThatLeavesIsDrained(t *testing.T) {
	s := serve(t, HTTP, Options{})
	begun, release := make(chan bool), make(chan bool)
	var conns atomic.Int32
	leaving := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		begun <- true
		<-release
		io.WriteString(w, "finished")
	}))
	leaving.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		switch st {
		case http.StateNew:
			conns.Add(1)
		case http.StateClosed:
			conns.Add(-1)
		}
	}
	leaving.Start()
	defer leaving.Close()
	stays, _ := pod(t, says("stays"))
	s.endpoints(leaving.Listener.Addr().String())
	got := make(chan string)
	go func() { _, body := get(t, s.url); got <- body }()
	<-begun
	s.endpoints(stays)
	for range 3 {
		if _, body := get(t, s.url); body != "stays" {
			t.Errorf("%q", body)
		}
	}
	release <- true
	if body := <-got; body != "finished" {
		t.Errorf("the request under way got %q", body)
	}
	wait(t, func() bool { return conns.Load() == 0 })
}

// rolling is a pod that answers what it is working on before it stops. Go's own
// Shutdown drops a request that has just been read.
type rolling struct {
	*http.Server
	listener net.Listener
	active   atomic.Int32 // connections that have a request
}

func startRolling(t *testing.T) *rolling {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rolling{listener: l}
	var last sync.Map
	r.Server = &http.Server{Addr: l.Addr().String(), Handler: http.HandlerFunc(echo), ConnState: func(c net.Conn, state http.ConnState) {
		was, _ := last.Swap(c, state)
		switch {
		case state == http.StateActive && was != http.StateActive:
			r.active.Add(1)
		case state != http.StateActive && was == http.StateActive:
			r.active.Add(-1)
		}
	}}
	go r.Serve(l)
	return r
}

func (r *rolling) stop(t *testing.T) {
	r.listener.Close()
	wait(t, func() bool { return r.active.Load() == 0 })
	r.Close()
}

// Pods come and go under load, each leaving the endpoints before or after it stops
// listening. Nothing fails; but who stops first may take a POST along that waits to
// be accepted: nobody can say whether it was worked on.
func TestNoRequestFailsWhilePodsRoll(t *testing.T) {
	s := serve(t, HTTP, Options{})
	pods := []*rolling{startRolling(t), startRolling(t), startRolling(t)}
	show := func() {
		var addrs []string
		for _, p := range pods {
			addrs = append(addrs, p.Addr)
		}
		s.endpoints(addrs...)
	}
	show()
	ctx, stop := context.WithCancel(context.Background())
	var load sync.WaitGroup
	var requests atomic.Int64
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	var lossy atomic.Bool                        // a pod stops while it is an endpoint
	pace := time.NewTicker(3 * time.Millisecond) // no more POSTs than get connections of their own
	defer pace.Stop()
	for i := range 8 {
		load.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				<-pace.C
				method := []string{"GET", "POST"}[(i+n)%2]
				req, _ := http.NewRequest(method, s.url, strings.NewReader("payload"))
				mayFail := method == "POST" && lossy.Load()
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				mayFail = mayFail || method == "POST" && lossy.Load()
				if (resp.StatusCode != 200 || string(body) != "payload") && !(mayFail && resp.StatusCode == 502) {
					t.Errorf("%s: %d %s %v", method, resp.StatusCode, body, err)
				}
				requests.Add(1)
			}
		})
	}
	for i := range 20 {
		at := requests.Load()
		wait(t, func() bool { return requests.Load() > at+50 })
		old := pods[i%3]
		pods[i%3] = startRolling(t)
		if i%2 == 0 {
			lossy.Store(false)
			at := (*s.force.Load().backends[webKey].all.Load())
			show()
			for _, e := range at {
				if e.addr == old.Addr {
					wait(t, func() bool { return e.open.Load() == 0 })
				}
			}
			old.stop(t)
		} else {
			lossy.Store(true)
			old.stop(t)
			show()
		}
	}
	stop()
	load.Wait()
	client.CloseIdleConnections()
	for _, p := range pods {
		p.Close()
	}
	t.Logf("%d requests", requests.Load())
}

func TestFailuresSayWhichHop(t *testing.T) {
	s := serve(t, HTTP, Options{Timeout: 20 * time.Millisecond})
	check := func(status int, words ...string) {
		t.Helper()
		code, body := get(t, s.url)
		for _, w := range append(words, "default/web port 80", "default/ing") {
			if code != status || !strings.Contains(body, w) {
				t.Errorf("%d, no %q in: %s", code, w, body)
			}
		}
	}
	s.set(Backend{Protocol: HTTP})
	check(503, "the Service has no endpoint that is ready", "hop       service", "kubectl -n default get endpointslices -l kubernetes.io/service-name=web")
	s.set(Backend{Protocol: HTTP, Fault: "there is no Service web"})
	check(503, "there is no Service web")
	addr := gone(t)
	s.endpoints(addr)
	check(502, addr, "connection refused", "hop       endpoint")
	hang := make(chan bool)
	addr, _ = pod(t, func(http.ResponseWriter, *http.Request) { <-hang })
	defer close(hang)
	s.endpoints(addr)
	check(504, "20ms", AnnotationTimeout)

	req, _ := http.NewRequest("GET", s.url, nil)
	req.Header.Set("Accept", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	var f Failure
	if err := json.NewDecoder(resp.Body).Decode(&f); err != nil || f.Status != 504 || f.Hop != "endpoint" || f.Endpoint != addr {
		t.Errorf("%+v %v", f, err)
	}
	s.Set(context.Background(), &Table{})
	if code, body := get(t, s.url+"/x"); code != 404 || !strings.Contains(body, `no Ingress has a rule`) {
		t.Errorf("%d %s", code, body)
	}
}

func TestTLS(t *testing.T) {
	s := serve(t, HTTP, Options{ForceHTTPS: true})
	addr, _ := pod(t, func(w http.ResponseWriter, req *http.Request) { io.WriteString(w, req.Header.Get("X-Forwarded-Proto")) })
	pair := func() KeyPair {
		c, err := selfSigned(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		return KeyPair{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))}
	}
	exact, wild := pair(), pair()
	s.Set(context.Background(), &Table{
		Hosts:        map[string][]Rule{"": {{Path: "/", To: webKey, Options: s.options}}},
		Backends:     map[BackendKey]Backend{webKey: {Protocol: HTTP, Endpoints: []string{addr}}},
		Certificates: map[string]KeyPair{"shop.example.com": exact, "*.example.com": wild},
	})
	ask := func(name string) (string, []byte, string) {
		client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: name}}}
		defer client.CloseIdleConnections()
		resp, err := client.Get(s.https)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		return resp.Proto, resp.TLS.PeerCertificates[0].Raw, string(body)
	}
	der := func(k KeyPair) []byte { b, _ := pem.Decode([]byte(k.Cert)); return b.Bytes }
	proto, cert, body := ask("shop.example.com")
	if proto != "HTTP/2.0" || body != "https" || !bytes.Equal(cert, der(exact)) {
		t.Errorf("%s %s, right certificate: %v", proto, body, bytes.Equal(cert, der(exact)))
	}
	if _, cert, _ := ask("other.example.com"); !bytes.Equal(cert, der(wild)) {
		t.Error("the wildcard certificate was not shown")
	}
	if _, cert, _ := ask("elsewhere.org"); bytes.Equal(cert, der(wild)) || bytes.Equal(cert, der(exact)) {
		t.Error("another name's certificate was shown")
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(s.url + "/p?q=1")
	if err != nil {
		t.Fatal(err)
	}
	if want := s.https + "/p?q=1"; resp.StatusCode != 308 || resp.Header.Get("Location") != want {
		t.Errorf("%d %s, want a redirect to %s", resp.StatusCode, resp.Header.Get("Location"), want)
	}
}

func TestListenSaysWhatToDo(t *testing.T) {
	l, err := Listen("127.0.0.1:0", "--http-port")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen(l.Addr().String(), "--http-port"); err == nil || !strings.Contains(err.Error(), "--http-port") || errors.Unwrap(err) == nil {
		t.Error(err)
	}
}

func BenchmarkForward(b *testing.B) {
	s := serve(b, HTTP, Options{})
	var addrs []string
	for range 3 {
		addr, _ := pod(b, says("odd"))
		addrs = append(addrs, addr)
	}
	s.endpoints(addrs...)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			resp, err := client.Get(s.url + "/parity?int=15")
			if err != nil || resp.StatusCode != 200 {
				b.Error(resp, err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

func TestClientsWaitForTheFirstTable(t *testing.T) {
	s := serve(t, HTTP, Options{})
	addr, _ := pod(t, says("ok"))
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	s.endpoints(addr)
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
		t.Error(resp, err)
	}
}
