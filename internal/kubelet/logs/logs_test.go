package logs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func file(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const three = `2026-01-02T03:04:05.1Z stdout F one
2026-01-02T03:04:06.2Z stderr P tw
2026-01-02T03:04:06.3Z stderr F o
2026-01-02T03:04:07.4Z stdout F three
`

func TestCopy(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 7, 0, time.UTC)
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"all":        {Options{Tail: -1, Limit: -1}, "one\ntwo\nthree\n"},
		"last line":  {Options{Tail: 1, Limit: -1}, "three\n"},
		"none":       {Options{Tail: 0, Limit: -1}, ""},
		"more":       {Options{Tail: 99, Limit: -1}, "one\ntwo\nthree\n"},
		"bytes":      {Options{Tail: -1, Limit: 6}, "one\ntw"},
		"since":      {Options{Tail: -1, Limit: -1, Since: at}, "three\n"},
		"one stream": {Options{Tail: -1, Limit: -1, Stream: "Stderr"}, "two\n"},
		"time":       {Options{Tail: 1, Limit: -1, Timestamps: true}, "2026-01-02T03:04:07.4Z three\n"},
	} {
		var b bytes.Buffer
		if err := Copy(t.Context(), file(t, three), c.o, &b, nil); err != nil || b.String() != c.want {
			t.Errorf("%s: %q %v, want %q", name, b.String(), err, c.want)
		}
	}
}

type lines struct {
	bytes.Buffer
	seen chan string
}

func (l *lines) Write(b []byte) (int, error) { l.seen <- string(b); return len(b), nil }

func TestFollowThroughRotation(t *testing.T) {
	path := file(t, three)
	var alive atomic.Bool
	alive.Store(true)
	out := &lines{seen: make(chan string, 100)}
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() { done <- Copy(ctx, path, Options{Follow: true, Tail: 1, Limit: -1}, out, alive.Load) }()
	appendTo := func(text string) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(f, "2026-01-02T03:04:08Z stdout F %s\n", text)
		f.Close()
	}
	expect := func(want string) {
		select {
		case got := <-out.seen:
			if got != want+"\n" {
				t.Fatalf("%q, want %q", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("%q never came", want)
		}
	}
	select { // the last line: from here on it follows
	case <-out.seen:
	case <-ctx.Done():
		t.Fatal("nothing came of what was there")
	}
	if err := Rotate(filepath.Dir(path), func() error { appendTo("after"); return nil }); err != nil {
		t.Fatal(err)
	}
	expect("after")
	appendTo("last")
	expect("last")
	alive.Store(false)
	appendTo("wakes the follower, which may show this or not")
	if err := <-done; err != nil {
		t.Error(err)
	}
	old, _ := filepath.Glob(path + ".*")
	if len(old) != 1 {
		t.Errorf("rotated logs: %v", old)
	}
}

func TestRotateKeepsFive(t *testing.T) {
	path := file(t, three)
	for i := range 7 {
		os.WriteFile(fmt.Sprintf("%s.2026010%d-000000", path, i), []byte("x"), 0o644)
	}
	if err := Rotate(filepath.Dir(path), func() error { return os.WriteFile(path, nil, 0o644) }); err != nil {
		t.Fatal(err)
	}
	all, _ := filepath.Glob(path + "*")
	if len(all) != 5 {
		t.Errorf("%d files: %s", len(all), strings.Join(all, " "))
	}
}
