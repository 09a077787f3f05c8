package setup

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
)

// followed is a file whose changes matter.
type followed struct {
	flag string // that names it, for the log
	path string
	last []byte // what it held when it was read last, good or bad
	take func(data []byte) error
	// reloads counts the changes, nil = nobody does.
	reloads *metrics.Reloads
}

// quiet is how long a file must not have changed before it is read: one that is
// being written makes no sense yet.
const quiet = 100 * time.Millisecond

// follow files until ctx ends. Their folders are watched, so that a file that is
// replaced, or a link that is turned, is seen. A change that take refuses is
// logged, and looked at again only when the file changes again.
func follow(ctx context.Context, files []*followed, log *slog.Logger) error {
	if len(files) == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	for _, f := range files {
		if err := w.Add(filepath.Dir(f.path)); err != nil {
			return err
		}
	}
	t := time.NewTimer(0) // what has changed since the start
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.Events:
			t.Reset(quiet)
		case err := <-w.Errors:
			log.Error("files can no longer be followed whole; changes may be missed", "err", err)
		case <-t.C:
			for _, f := range files {
				f.look(log)
			}
		}
	}
}

// look whether a file has changed.
func (f *followed) look(log *slog.Logger) {
	data, err := os.ReadFile(f.path)
	if err != nil {
		f.changed(nil, err)
		log.Error("a file cannot be read any more; what it said before still holds", "flag", f.flag, "file", f.path, "err", err)
		return
	}
	if bytes.Equal(data, f.last) {
		return
	}
	f.last = data
	err = f.take(data)
	f.changed(data, err)
	if err != nil {
		log.Error("a file was changed to what makes no sense; what it said before still holds", "flag", f.flag, "file", f.path, "err", err)
		return
	}
	log.Info("a changed file holds now", "flag", f.flag, "file", f.path)
}

func (f *followed) changed(data []byte, err error) {
	if f.reloads != nil {
		f.reloads.Changed(data, err)
	}
}
