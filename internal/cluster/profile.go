package cluster

import (
	"net/http"
	"net/http/pprof"
)

// profiles answers below /debug/pprof/, to those whom RBAC allows it: by the
// bootstrap policy only to members of system:masters.
func profiles() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/debug/pprof/", pprof.Index)
	m.HandleFunc("/debug/pprof/profile", pprof.Profile)
	m.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	m.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return m
}
