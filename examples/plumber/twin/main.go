// Twin is a static program with the endpoints of the R API beside it, for
// demonstrations and tests that should not have to wait for an R image.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	s := &http.Server{Addr: ":8000", Handler: handler(func() { os.Exit(0) })}
	// On SIGTERM requests under way are finished.
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		s.Shutdown(context.Background())
	}()
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-done
}

func handler(quit func()) http.Handler {
	var failed atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET /parity", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("int"))
		if err != nil {
			http.Error(w, "int is no integer", http.StatusBadRequest)
			return
		}
		answer(w, []string{"even", "odd"}[n&1])
	})
	mux.HandleFunc("GET /wait", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(5 * time.Second):
			answer(w, map[string]string{"time": time.Now().Format(time.RFC3339)})
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		if failed.Load() {
			http.Error(w, "failed", http.StatusInternalServerError)
			return
		}
		answer(w, "OK")
	})
	mux.HandleFunc("POST /fail", func(w http.ResponseWriter, r *http.Request) {
		failed.Store(true)
		answer(w, nil)
	})
	mux.HandleFunc("POST /quit", func(w http.ResponseWriter, r *http.Request) {
		answer(w, nil)
		http.NewResponseController(w).Flush()
		time.AfterFunc(100*time.Millisecond, quit)
	})
	return mux
}

// answer as plumber does: text as it is, the rest as JSON.
func answer(w http.ResponseWriter, value any) {
	if text, ok := value.(string); ok {
		fmt.Fprint(w, text)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(value)
}
