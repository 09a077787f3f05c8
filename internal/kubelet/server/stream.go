package server

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/kubelet/logs"
	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

// logs of a container.
func (s *server) logs(w http.ResponseWriter, r *http.Request) {
	p := s.find(w, r)
	if p == nil {
		return
	}
	name := r.PathValue("container")
	o, err := logOptions(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	if !has(p, name) {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q\n", name, p.Name), http.StatusNotFound)
		return
	}
	id, _, err := containerID(p, name, o.Previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	st, err := s.Runtime.ContainerStatus(r.Context(), &cri.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		http.Error(w, fmt.Sprintf("unable to retrieve container logs for %s", s.Runtime.ID(id)), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Transfer-Encoding", "chunked")
	w.Header().Set("Content-Type", "text/plain")
	out := flusher{w, http.NewResponseController(w)}
	if o.Follow {
		out.Flush()
	}
	running := func() bool {
		st, err := s.Runtime.ContainerStatus(r.Context(), &cri.ContainerStatusRequest{ContainerId: id})
		return err == nil && st.Status.State == cri.ContainerState_CONTAINER_RUNNING
	}
	if err := logs.Copy(r.Context(), st.Status.LogPath, logs.FromAPI(o, time.Now()), out, running); err != nil && r.Context().Err() == nil {
		fmt.Fprintf(w, "%v\n", err)
	}
}

type flusher struct {
	http.ResponseWriter
	c *http.ResponseController
}

func (f flusher) Flush() { _ = f.c.Flush() }

func has(p *v1.Pod, name string) bool {
	is := func(c v1.Container) bool { return c.Name == name }
	return slices.ContainsFunc(p.Spec.Containers, is) || slices.ContainsFunc(p.Spec.InitContainers, is) ||
		slices.ContainsFunc(p.Spec.EphemeralContainers, func(c v1.EphemeralContainer) bool { return c.Name == name })
}

func logOptions(q url.Values) (*v1.PodLogOptions, error) {
	o := &v1.PodLogOptions{Follow: yes(q, "follow"), Previous: yes(q, "previous"), Timestamps: yes(q, "timestamps")}
	number := func(key string) (*int64, error) {
		text := q.Get(key)
		if text == "" || key == "tailLines" && text == "all" {
			return nil, nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%s: %q is not a number that is 0 or more", key, text)
		}
		return &n, nil
	}
	var err error
	if o.TailLines, err = number("tailLines"); err != nil {
		return nil, err
	}
	if o.LimitBytes, err = number("limitBytes"); err != nil {
		return nil, err
	}
	if o.SinceSeconds, err = number("sinceSeconds"); err != nil {
		return nil, err
	}
	if t := q.Get("sinceTime"); t != "" {
		at, err := time.Parse(time.RFC3339, t)
		if err != nil {
			return nil, fmt.Errorf("sinceTime: %w", err)
		}
		o.SinceTime = &metav1.Time{Time: at}
	}
	if st := q.Get("stream"); st != "" {
		o.Stream = &st
	}
	return o, nil
}

func yes(q url.Values, keys ...string) bool {
	for _, k := range keys {
		if b, err := strconv.ParseBool(q.Get(k)); err == nil && b {
			return true
		}
	}
	return false
}

// running finds the container of an exec or attach; it answers if it does not run.
func (s *server) running(w http.ResponseWriter, r *http.Request) string {
	p := s.find(w, r)
	if p == nil {
		return ""
	}
	id, running, err := containerID(p, r.PathValue("container"), false)
	if err != nil || !running {
		http.Error(w, fmt.Sprintf("container not found (%q)", r.PathValue("container")), http.StatusNotFound)
		return ""
	}
	return id
}

func (s *server) exec(w http.ResponseWriter, r *http.Request) {
	id := s.running(w, r)
	if id == "" {
		return
	}
	q := r.URL.Query()
	req := &cri.ExecRequest{ContainerId: id, Cmd: q["command"], Tty: yes(q, "tty"), Stdin: yes(q, "input", "stdin"), Stdout: yes(q, "output", "stdout"), Stderr: yes(q, "error", "stderr")}
	if req.Tty {
		req.Stderr = false
	}
	if !req.Stdin && !req.Stdout && !req.Stderr {
		http.Error(w, "you must specify at least 1 of stdin, stdout, stderr", http.StatusBadRequest)
		return
	}
	res, err := s.Runtime.Exec(r.Context(), req)
	s.proxy(w, r, res.GetUrl(), err)
}

func (s *server) attach(w http.ResponseWriter, r *http.Request) {
	id := s.running(w, r)
	if id == "" {
		return
	}
	q := r.URL.Query()
	req := &cri.AttachRequest{ContainerId: id, Tty: yes(q, "tty"), Stdin: yes(q, "input", "stdin"), Stdout: yes(q, "output", "stdout"), Stderr: yes(q, "error", "stderr")}
	if req.Tty {
		req.Stderr = false
	}
	res, err := s.Runtime.Attach(r.Context(), req)
	s.proxy(w, r, res.GetUrl(), err)
}

func (s *server) portForward(w http.ResponseWriter, r *http.Request) {
	p := s.find(w, r)
	if p == nil {
		return
	}
	list, err := s.Runtime.ListPodSandbox(r.Context(), &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{
		LabelSelector: map[string]string{runtime.PodUIDLabel: string(p.UID)},
		State:         &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY},
	}})
	if err != nil || len(list.Items) == 0 {
		http.Error(w, fmt.Sprintf("pod %q does not run on this node", p.Name), http.StatusNotFound)
		return
	}
	req := &cri.PortForwardRequest{PodSandboxId: list.Items[0].Id}
	for _, v := range append(r.URL.Query()["port"], r.URL.Query()["ports"]...) {
		for _, part := range strings.Split(v, ",") {
			if n, err := strconv.ParseInt(part, 10, 32); err == nil {
				req.Port = append(req.Port, int32(n))
			}
		}
	}
	res, err := s.Runtime.PortForward(r.Context(), req)
	s.proxy(w, r, res.GetUrl(), err)
}

// proxy an upgraded connection to the runtime's streaming server.
func (s *server) proxy(w http.ResponseWriter, r *http.Request, target string, err error) {
	if err != nil {
		code := http.StatusInternalServerError
		if runtime.NotFound(err) {
			code = http.StatusNotFound
		}
		http.Error(w, runtime.Message(err), code)
		return
	}
	u, err := url.Parse(target)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	p := &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL, pr.Out.Host = u, u.Host
			pr.Out.Header.Del("Authorization")
		},
		FlushInterval: -1,
		ErrorLog:      nil,
	}
	p.ServeHTTP(w, r)
}

// run a command and answer with its output.
func (s *server) run(w http.ResponseWriter, r *http.Request) {
	id := s.running(w, r)
	if id == "" {
		return
	}
	out, code, err := s.Runtime.ExecSync(r.Context(), id, strings.Split(r.URL.Query().Get("cmd"), " "), 0)
	if err != nil {
		http.Error(w, runtime.Message(err), http.StatusInternalServerError)
		return
	}
	if code != 0 {
		w.WriteHeader(http.StatusInternalServerError)
	}
	w.Write(out)
}
