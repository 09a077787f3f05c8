// Package server is the kubelet's HTTPS API: logs, exec, attach, port-forward,
// the node's pods, statistics and metrics. Who may use it is asked of the API
// server.
package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

// Config of the server.
type Config struct {
	Node        string
	Conn        client.Conn
	Log         *slog.Logger
	Runtime     *runtime.Client
	Address     string
	Port        int
	Listener    net.Listener // nil = listen on Address and Port
	ClientCAs   func() *x509.CertPool
	Certificate func() (*tls.Certificate, error)

	Pods     func() []*v1.Pod // with the status last computed
	PodLogs  func(*v1.Pod) string
	Summary  func(ctx context.Context, brief bool) (any, error) // brief: only CPU and memory
	Metrics  map[string][]prometheus.Collector                  // by path
	Resource func(context.Context) string                       // Prometheus text of /metrics/resource
	LogRoot  string                                             // served below /logs/
}

type server struct {
	Config
	may *authorizer
}

// Run the server until ctx ends.
func Run(ctx context.Context, c Config) error {
	s := &server{Config: c, may: newAuthorizer(c.Conn, c.Node)}
	if c.Certificate == nil {
		return fmt.Errorf("kubelet server: no serving certificate")
	}
	l := c.Listener
	if l == nil {
		var err error
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(c.Address, strconv.Itoa(c.Port)))
		if err != nil {
			return fmt.Errorf("kubelet server: %w; choose another port with --kubelet-port or stop what listens there", err)
		}
	}
	srv := &http.Server{
		Handler: s.authenticated(s.routes()),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.Certificate() },
		},
		ReadHeaderTimeout: 30 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err := srv.ServeTLS(l, "", "")
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (s *server) routes() http.Handler {
	m := http.NewServeMux()
	ok := func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok")) }
	m.HandleFunc("GET /healthz", ok)
	m.HandleFunc("GET /healthz/{check}", ok)
	m.HandleFunc("GET /pods", s.pods)
	m.HandleFunc("GET /runningpods/", s.pods)
	m.HandleFunc("GET /configz", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, map[string]any{"kubeletconfig": map[string]any{"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1", "port": s.Port}})
	})
	m.HandleFunc("GET /stats/summary", func(w http.ResponseWriter, r *http.Request) {
		sum, err := s.Summary(r.Context(), r.URL.Query().Get("only_cpu_and_memory") == "true")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		reply(w, sum)
	})
	for path, c := range s.Metrics {
		reg := prometheus.NewRegistry()
		reg.MustRegister(c...)
		m.Handle("GET "+path, promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	}
	m.HandleFunc("GET /metrics/resource", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		w.Write([]byte(s.Resource(r.Context())))
	})
	if s.LogRoot != "" {
		m.Handle("GET /logs/", http.StripPrefix("/logs/", http.FileServer(http.Dir(s.LogRoot))))
	}
	m.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	for _, method := range []string{"GET", "POST"} {
		m.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", s.exec)
		m.HandleFunc(method+" /exec/{namespace}/{pod}/{uid}/{container}", s.exec)
		m.HandleFunc(method+" /attach/{namespace}/{pod}/{container}", s.attach)
		m.HandleFunc(method+" /attach/{namespace}/{pod}/{uid}/{container}", s.attach)
		m.HandleFunc(method+" /portForward/{namespace}/{pod}", s.portForward)
		m.HandleFunc(method+" /portForward/{namespace}/{pod}/{uid}", s.portForward)
	}
	m.HandleFunc("POST /run/{namespace}/{pod}/{container}", s.run)
	m.HandleFunc("POST /run/{namespace}/{pod}/{uid}/{container}", s.run)
	return m
}

func (s *server) pods(w http.ResponseWriter, _ *http.Request) {
	list := v1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []v1.Pod{}}
	for _, p := range s.Pods() {
		list.Items = append(list.Items, *p)
	}
	reply(w, list)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// find the pod and the container that a request names; it answers if there is none.
func (s *server) find(w http.ResponseWriter, r *http.Request) (p *v1.Pod) {
	ns, name, uid := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("uid")
	for _, p := range s.Pods() {
		if p.Namespace == ns && p.Name == name && (uid == "" || string(p.UID) == uid) {
			return p
		}
	}
	http.Error(w, fmt.Sprintf("pod %q not found\n", name), http.StatusNotFound)
	return nil
}

// containerID of a container that has run in a pod; previous = the one before.
func containerID(p *v1.Pod, name string, previous bool) (id string, running bool, err error) {
	all := append(append(append([]v1.ContainerStatus{}, p.Status.InitContainerStatuses...), p.Status.ContainerStatuses...), p.Status.EphemeralContainerStatuses...)
	for i := range all {
		st := &all[i]
		if st.Name != name {
			continue
		}
		last := ""
		if t := st.LastTerminationState.Terminated; t != nil {
			last = t.ContainerID
		}
		switch {
		case previous:
			id = last
			if id == "" {
				return "", false, fmt.Errorf("previous terminated container %q in pod %q not found", name, p.Name)
			}
		case st.State.Running != nil:
			id, running = st.ContainerID, true
		case st.State.Terminated != nil && st.State.Terminated.ContainerID != "":
			id = st.State.Terminated.ContainerID
		case last != "":
			id = last
		case st.State.Waiting != nil:
			switch w := st.State.Waiting; w.Reason {
			case "ErrImagePull":
				return "", false, fmt.Errorf("container %q in pod %q is waiting to start: image can't be pulled", name, p.Name)
			case "ImagePullBackOff":
				return "", false, fmt.Errorf("container %q in pod %q is waiting to start: trying and failing to pull image", name, p.Name)
			default:
				return "", false, fmt.Errorf("container %q in pod %q is waiting to start: %v", name, p.Name, w.Reason)
			}
		default:
			return "", false, fmt.Errorf("container %q in pod %q is terminated", name, p.Name)
		}
		_, bare, _ := strings.Cut(id, "://")
		return bare, running, nil
	}
	return "", false, fmt.Errorf("container %q in pod %q is not available", name, p.Name)
}
