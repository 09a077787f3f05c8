package proxy

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// healthServer answers load balancers that ask, on a Service's
// healthCheckNodePort, whether this node has endpoints of it.
type healthServer struct {
	host string
	log  *slog.Logger

	mu    sync.Mutex
	ports map[Owner]*healthPort
}

type healthPort struct {
	port   uint16
	ready  int
	server *http.Server
}

func newHealthServer(host string, log *slog.Logger) *healthServer {
	return &healthServer{host: host, log: log, ports: map[Owner]*healthPort{}}
}

// set opens, changes or (port 0) closes the port of an owner.
func (h *healthServer) set(o Owner, port uint16, ready int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	have := h.ports[o]
	if have != nil && have.port == port {
		have.ready = ready
		return
	}
	if have != nil {
		_ = have.server.Close()
		delete(h.ports, o)
	}
	if port == 0 {
		return
	}
	l, err := net.Listen("tcp", net.JoinHostPort(h.host, strconv.Itoa(int(port))))
	if err != nil {
		h.log.Error("health check node port cannot be opened", "owner", string(o), "error", err)
		return
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { h.answer(w, o) })}
	h.ports[o] = &healthPort{port: port, ready: ready, server: server}
	go func() { _ = server.Serve(l) }()
}

func (h *healthServer) answer(w http.ResponseWriter, o Owner) {
	h.mu.Lock()
	ready := 0
	if p := h.ports[o]; p != nil {
		ready = p.ready
	}
	h.mu.Unlock()
	ns, name, _ := strings.Cut(strings.TrimPrefix(string(o), "service "), "/")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", fmt.Sprint(ready))
	if ready == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"service":             map[string]string{"namespace": ns, "name": name},
		"localEndpoints":      ready,
		"serviceProxyHealthy": true,
	})
}

func (h *healthServer) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for o, p := range h.ports {
		_ = p.server.Close()
		delete(h.ports, o)
	}
}
