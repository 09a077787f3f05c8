// Package logs reads and rotates the log files that the runtime writes for
// containers: one line each, "TIME STREAM TAG TEXT", where the tag P says that
// the line goes on in the next one.
package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	v1 "k8s.io/api/core/v1"
)

// Options of reading a log, as kubectl logs has them.
type Options struct {
	Follow     bool
	Timestamps bool
	Since      time.Time
	Tail       int64 // lines, negative = all
	Limit      int64 // bytes, negative = all
	Stream     string
}

// FromAPI checks and translates the options of a request.
func FromAPI(o *v1.PodLogOptions, now time.Time) Options {
	r := Options{Follow: o.Follow, Timestamps: o.Timestamps, Tail: -1, Limit: -1, Stream: v1.LogStreamAll}
	if o.TailLines != nil {
		r.Tail = *o.TailLines
	}
	if o.LimitBytes != nil {
		r.Limit = *o.LimitBytes
	}
	if o.SinceSeconds != nil {
		r.Since = now.Add(-time.Duration(*o.SinceSeconds) * time.Second)
	}
	if o.SinceTime != nil {
		r.Since = o.SinceTime.Time
	}
	if o.Stream != nil {
		r.Stream = *o.Stream
	}
	return r
}

var errLimit = errors.New("limit reached")

// Copy a log to w. When it follows, it ends after running has said false and
// everything written by then has been copied, or with ctx.
func Copy(ctx context.Context, path string, o Options, w io.Writer, running func() bool) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("failed to try resolving symlinks in path %q: %w", path, err)
	}
	defer func() { f.Close() }()
	if o.Tail >= 0 {
		if err := seekTail(f, o.Tail); err != nil {
			return err
		}
	}
	var watch *fsnotify.Watcher
	if o.Follow {
		if watch, err = fsnotify.NewWatcher(); err != nil {
			return err
		}
		defer watch.Close()
		if err := watch.Add(filepath.Dir(path)); err != nil {
			return err
		}
	}
	c := copier{w: w, o: o}
	in := bufio.NewReaderSize(f, 64<<10)
	var part []byte
	last := false
	for {
		line, err := in.ReadBytes('\n')
		part = append(part, line...)
		if err == nil {
			err = c.line(part)
			part = part[:0]
			if errors.Is(err, errLimit) {
				return nil
			}
			if err != nil {
				return err
			}
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		if !o.Follow || last {
			return nil
		}
		if moved(f, path) {
			next, err := os.Open(path)
			if err == nil {
				_ = f.Close()
				f, part = next, part[:0]
				in.Reset(f)
				continue
			}
		}
		if fl, ok := w.(interface{ Flush() }); ok {
			fl.Flush()
		}
		if !running() {
			last = true // once more, for what was written meanwhile
			continue
		}
		if err := wait(ctx, watch); err != nil {
			return nil
		}
	}
}

// stateEvery is how often a follower asks whether the container still runs when
// its log is silent.
const stateEvery = 10 * time.Second

func wait(ctx context.Context, watch *fsnotify.Watcher) error {
	t := time.NewTimer(stateEvery)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-watch.Events:
	case err := <-watch.Errors:
		return err
	case <-t.C:
	}
	return nil
}

func moved(f *os.File, path string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && !os.SameFile(a, b)
}

type copier struct {
	w    io.Writer
	o    Options
	sent int64
	cont bool // in the middle of a line that goes on
}

// line of the file: parsed, filtered, written.
func (c *copier) line(b []byte) error {
	at, stream, partial, text, ok := parse(b)
	if !ok {
		return nil
	}
	if !c.o.Since.IsZero() && at.Before(c.o.Since) {
		return nil
	}
	if c.o.Stream != v1.LogStreamAll && c.o.Stream != "" && !strings.EqualFold(stream, c.o.Stream) {
		return nil
	}
	if partial {
		text = bytes.TrimSuffix(text, []byte{'\n'})
	}
	if c.o.Timestamps && !c.cont {
		text = append([]byte(at.Format(time.RFC3339Nano)+" "), text...)
	}
	c.cont = partial
	if c.o.Limit >= 0 && c.sent+int64(len(text)) >= c.o.Limit {
		if _, err := c.w.Write(text[:c.o.Limit-c.sent]); err != nil {
			return err
		}
		return errLimit
	}
	n, err := c.w.Write(text)
	c.sent += int64(n)
	return err
}

func parse(b []byte) (at time.Time, stream string, partial bool, text []byte, ok bool) {
	f := bytes.SplitN(b, []byte{' '}, 4)
	if len(f) != 4 {
		return at, "", false, nil, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(f[0]))
	if err != nil {
		return at, "", false, nil, false
	}
	tag, _, _ := strings.Cut(string(f[2]), ":")
	return at, string(f[1]), tag == "P", f[3], true
}

// seekTail goes to where the last n lines begin.
func seekTail(f *os.File, n int64) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return err
	}
	buf := make([]byte, 64<<10)
	pos, seen := end, int64(0)
	for pos > 0 {
		size := min(pos, int64(len(buf)))
		pos -= size
		if _, err := f.ReadAt(buf[:size], pos); err != nil {
			return err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' || pos+i+1 == end {
				continue
			}
			if seen++; seen == n {
				_, err = f.Seek(pos+i+1, io.SeekStart)
				return err
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// Last lines of a log as a container's termination message: at most 80 and 2048 bytes.
func Last(path string) string {
	var b bytes.Buffer
	if err := Copy(context.Background(), path, Options{Tail: 80, Limit: -1, Stream: v1.LogStreamAll}, &b, nil); err != nil {
		return fmt.Sprintf("Error reading termination message from logs: %v", err)
	}
	text := b.Bytes()
	return string(text[max(0, len(text)-2048):])
}
