package plugin

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// Handler of one type of plugin. Of one socket, its calls come one after another.
type Handler interface {
	// Validate says why a plugin cannot be used, before anything is done.
	Validate(Info) error
	// Register a plugin. When it fails, it is tried again later.
	Register(context.Context, Info) error
	// Deregister a plugin that was registered and whose socket is gone.
	Deregister(Info)
}

// Info of a plugin, as it says itself.
type Info struct {
	Type, Name string
	Endpoint   string // the socket of its service, on this machine
	Said       string // the socket of its service, as the plugin has named it
	Versions   []string
}

// Socket of the plugin's service, as it has named it.
func (i Info) Socket() string { return i.Said }

// Watcher of the folder in which plugins announce themselves.
type Watcher struct {
	Root     Root
	Handlers map[string]Handler // by type: CSIPlugin, DRAPlugin, DevicePlugin
	Log      *slog.Logger

	group   sync.WaitGroup
	sockets map[string]*socket
}

// Folder below the kubelet's in which plugins announce themselves.
const Folder = "plugins_registry"

// Run until ctx ends. What is registered then stays so: the kubelet comes back.
func (w *Watcher) Run(ctx context.Context) error {
	dir := w.Root.Join(Folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("kubelet: %w", err)
	}
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("kubelet: watch %s: %w", dir, err)
	}
	defer n.Close()
	defer w.group.Wait()
	w.sockets = map[string]*socket{}
	if err := n.Add(dir); err != nil {
		return fmt.Errorf("kubelet: watch %s: %w", dir, err)
	}
	w.look(ctx, n, dir)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-n.Errors:
			w.Log.Warn("changes of the plugins may have been lost", "err", err)
			w.again(ctx, n, dir)
		case e := <-n.Events:
			switch {
			case e.Has(fsnotify.Create):
				w.look(ctx, n, e.Name)
			case e.Has(fsnotify.Remove), e.Has(fsnotify.Rename):
				w.remove(e.Name)
			}
		}
	}
}

// again looks at everything: what went and what came.
func (w *Watcher) again(ctx context.Context, n *fsnotify.Watcher, dir string) {
	for path := range w.sockets {
		if _, err := os.Lstat(path); err != nil {
			w.remove(path)
		}
	}
	w.look(ctx, n, dir)
}

// look at a path: a socket is a plugin, and there may be some in folders.
func (w *Watcher) look(ctx context.Context, n *fsnotify.Watcher, path string) {
	_ = filepath.WalkDir(path, func(path string, e fs.DirEntry, gone error) error {
		switch {
		case gone != nil:
			return nil
		case strings.HasPrefix(e.Name(), "."):
			if e.IsDir() {
				return fs.SkipDir
			}
		case e.IsDir():
			if err := n.Add(path); err != nil {
				w.Log.Warn("folder of plugins not watched", "folder", path, "err", err)
			}
		case e.Type()&fs.ModeSocket != 0:
			w.add(ctx, path)
		}
		return nil
	})
}

func (w *Watcher) add(ctx context.Context, path string) {
	info, err := os.Stat(path)
	if err != nil {
		return
	}
	old := w.sockets[path]
	if old != nil && os.SameFile(old.file, info) {
		return
	}
	s := &socket{w: w, path: path, file: info, gone: make(chan struct{}), done: make(chan struct{})}
	if old != nil {
		close(old.gone)
		s.before = old.done
	}
	w.sockets[path] = s
	w.group.Go(func() { s.run(ctx) })
}

// remove what was at a path.
func (w *Watcher) remove(path string) {
	for at, s := range w.sockets {
		if within(at, path) {
			close(s.gone)
			delete(w.sockets, at)
		}
	}
}
