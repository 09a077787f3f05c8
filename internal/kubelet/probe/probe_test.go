package probe

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func target(t *testing.T, raw string) (Target, intstr.IntOrString) {
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	port, _ := strconv.Atoi(u.Port())
	return Target{Pod: &v1.Pod{}, Container: &v1.Container{Ports: []v1.ContainerPort{{Name: "web", ContainerPort: int32(port)}}}, IP: u.Hostname()}, intstr.FromInt32(int32(port))
}

func TestHTTP(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "name" || r.Header.Get("X-A") != "b" || !strings.HasPrefix(r.UserAgent(), "kube-probe/") {
			w.WriteHeader(400)
		}
	})
	mux.HandleFunc("/bad", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for _, srv := range []*httptest.Server{httptest.NewServer(mux), httptest.NewTLSServer(mux)} {
		defer srv.Close()
		tg, _ := target(t, srv.URL)
		scheme := v1.URISchemeHTTP
		if strings.HasPrefix(srv.URL, "https") {
			scheme = v1.URISchemeHTTPS
		}
		for path, want := range map[string]string{
			"/ok": Success, "/bad": Failure + " HTTP probe failed with statuscode: 500", "/away": Success, "/slow": Failure,
		} {
			pr := &v1.Probe{TimeoutSeconds: 1, ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: path, Port: intstr.FromString("web"), Scheme: scheme,
				HTTPHeaders: []v1.HTTPHeader{{Name: "Host", Value: "name"}, {Name: "x-a", Value: "b"}}}}}
			result, msg := (&Manager{}).Run(t.Context(), pr, tg)
			if got := result + " " + msg; !strings.HasPrefix(got, want) {
				t.Errorf("%s: %q, want %q", path, got, want)
			}
		}
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tg, port := target(t, "http://"+l.Addr().String())
	pr := &v1.Probe{ProbeHandler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: port}}}
	if r, msg := (&Manager{}).Run(t.Context(), pr, tg); r != Success {
		t.Errorf("%s %s", r, msg)
	}
	l.Close()
	if r, _ := (&Manager{}).Run(t.Context(), pr, tg); r != Failure {
		t.Error("a closed port is no success")
	}
	pr.TCPSocket.Port = intstr.FromString("nowhere")
	if r, msg := (&Manager{}).Run(t.Context(), pr, tg); r != Failure || !strings.Contains(msg, "invalid port") {
		t.Errorf("%s %s", r, msg)
	}
}

func TestSleepHookEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	if err := (&Manager{}).Hook(ctx, &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 60}}, Target{}); err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("the hook slept on: %v", err)
	}
}
