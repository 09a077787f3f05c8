package registry

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// State of the store as nodes are told it.
type State struct {
	Version int64   `json:"version"`
	Images  []Image `json:"images"`
}

// Manager answers what the command line and the nodes ask beside pulling:
// list, import, remove, and a stream of states. An import returns when every
// node that listens has the image, so that even pull policy Never finds it.
type Manager struct {
	Store *Store

	mu    sync.Mutex
	nodes map[string]*listener
}

// listener is a node that follows the state. A node that follows twice (its old
// connection has not been missed yet) is one listener.
type listener struct {
	streams int
	has     int64         // version that the node has
	moved   chan struct{} // closed when has moves
}

// patience is how long an import waits for the nodes.
const patience = 2 * time.Minute

// List answers with the images.
func (m *Manager) List(w http.ResponseWriter, r *http.Request) {
	images, version, _ := m.Store.State()
	answer(w, State{version, images})
}

// Import reads an archive from the body. The query parameter name names its image.
func (m *Manager) Import(w http.ResponseWriter, r *http.Request) {
	images, err := m.Store.Import(r.Body, r.URL.Query().Get("name"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	_, version, _ := m.Store.State()
	m.await(ctx, version)
	answer(w, images)
}

// Remove takes the image named in the query away.
func (m *Manager) Remove(w http.ResponseWriter, r *http.Request) {
	image := r.URL.Query().Get("name")
	switch ok, err := m.Store.Remove(image); {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	case !ok:
		http.Error(w, "there is no image "+image+`: "proa image ls" lists them`, http.StatusNotFound)
	}
}

// Follow streams the state, a line of JSON each time it changes, to a node.
func (m *Manager) Follow(w http.ResponseWriter, r *http.Request, node string) {
	defer m.listen(node)()
	flush := http.NewResponseController(w)
	out := json.NewEncoder(w)
	w.Header().Set("Content-Type", "application/json")
	for {
		images, version, changed := m.Store.State()
		if out.Encode(State{version, images}) != nil || flush.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// Has notes that a node has all images of a version.
func (m *Manager) Has(node string, version int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.nodes[node]; l != nil && version > l.has {
		l.has = version
		close(l.moved)
		l.moved = make(chan struct{})
	}
}

func (m *Manager) listen(node string) (leave func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.nodes == nil {
		m.nodes = map[string]*listener{}
	}
	l := m.nodes[node]
	if l == nil {
		l = &listener{moved: make(chan struct{})}
		m.nodes[node] = l
	}
	l.streams++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if l.streams--; l.streams == 0 {
			delete(m.nodes, node)
			close(l.moved)
			l.moved = make(chan struct{})
		}
	}
}

// await returns when all nodes that listen have a version, or ctx ends.
func (m *Manager) await(ctx context.Context, version int64) {
	for {
		behind := m.behind(version)
		if behind == nil {
			return
		}
		select {
		case <-behind:
		case <-ctx.Done():
			return
		}
	}
}

func (m *Manager) behind(version int64) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.nodes {
		if l.has < version {
			return l.moved
		}
	}
	return nil
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}
