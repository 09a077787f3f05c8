package encrypt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long the file must have been left alone before it is read: who
// writes it may do so in several steps.
const settle = 100 * time.Millisecond

// wellWithin is how long new KMS plugins have to become well before a changed
// configuration is refused.
const wellWithin = 10 * time.Second

// follow changes of the file. Its folder is watched, because files are replaced
// by others, and Secrets in pods by links to other folders.
func (v *Values) follow() error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("--encryption-provider-config-automatic-reload: %w", err)
	}
	if err := w.Add(filepath.Dir(v.cfg.File)); err != nil {
		w.Close()
		return fmt.Errorf("--encryption-provider-config-automatic-reload: watch %s: %w", filepath.Dir(v.cfg.File), err)
	}
	v.wg.Go(func() {
		defer w.Close()
		var due <-chan time.Time
		for {
			select {
			case <-v.ctx.Done():
				return
			case <-w.Events:
				due = time.After(settle)
			case err := <-w.Errors: // events were lost
				v.log.Warn("changes of the encryption configuration may have been missed; looking", "err", err)
				due = time.After(settle)
			case <-due:
				due = nil
				if err := v.reload(); err != nil && v.ctx.Err() == nil {
					v.log.Error("the changed encryption configuration is not used; the one before stays", "err", err)
				}
			}
		}
	})
	return nil
}

// reload takes over the file if it changed and is good.
func (v *Values) reload() error {
	data, err := os.ReadFile(v.cfg.File)
	if err != nil {
		return err
	}
	was := v.hash
	if sha256.Sum256(data) == was || len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	r, err := v.load()
	if err != nil {
		v.hash = was
		return err
	}
	if err := r.wellSoon(v.ctx); err != nil {
		r.stop()
		v.hash = was
		return err
	}
	old := v.now.Swap(r)
	v.log.Info("the encryption configuration was read again", "file", v.cfg.File)
	v.tell()
	// Calls by the old rules may be on their way still.
	v.wg.Go(func() {
		defer old.stop()
		select {
		case <-v.ctx.Done():
		case <-time.After(2 * old.timeouts()):
		}
	})
	return nil
}

// wellSoon waits for all plugins to be well.
func (r *rules) wellSoon(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, max(wellWithin, 2*r.timeouts()))
	defer cancel()
	for {
		err := r.check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(rememberUnwell):
		}
	}
}

func (r *rules) check(ctx context.Context) error {
	var all []error
	for _, k := range r.kms {
		all = append(all, k.check(ctx))
	}
	return errors.Join(all...)
}

func (r *rules) timeouts() (sum time.Duration) {
	for _, k := range r.kms {
		sum += k.timeout
	}
	return sum
}

// UsesKMS says whether there are plugins, or may be some after a reload.
func (v *Values) UsesKMS() bool { return v.cfg.Reload || len(v.now.Load().kms) > 0 }

// Check that all KMS plugins are well.
func (v *Values) Check(ctx context.Context) error { return v.now.Load().check(ctx) }

// Changed is sent to when what could not be read may be readable: the
// configuration was read again, or a plugin is well again.
func (v *Values) Changed() <-chan struct{} { return v.changed }

func (v *Values) tell() {
	select {
	case v.changed <- struct{}{}:
	default: // somebody is being told already
	}
}
