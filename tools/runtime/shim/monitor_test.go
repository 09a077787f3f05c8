package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		args string
		ok   bool
		verb string
	}{
		{"runc --root /r --log /l --log-format json start id", true, "start"},
		{"runc --root /r kill --all id 9", true, "kill"},
		{"runc --root /r --systemd-cgroup start id", false, ""},
		{"runc --root /r --debug delete id", false, ""},
		{"runc start id", false, ""},
		{"runc --root /r list", false, ""},
	} {
		if got, ok := parse(strings.Fields(c.args)); ok != c.ok || ok && (got.verb != c.verb || got.root != "/r") {
			t.Errorf("%s: %+v %v", c.args, got, ok)
		}
	}
	// The last has a fifo, but nobody who will ever open it.
	root := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(root, "id"), 0o755), unix.Mkfifo(filepath.Join(root, "id", fifo), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"runc --root /none start id", "runc --root /none kill id 9", "runc --root /none state id", "runc --root " + root + " start id", "runc --root " + root + " delete --force id"} {
		if (monitor{}).done(&exec.Cmd{Args: strings.Fields(args)}) {
			t.Errorf("%s is said to be done", args)
		}
	}
	if !(monitor{}).done(&exec.Cmd{Args: strings.Fields("runc --root " + root + " delete --force gone")}) {
		t.Error("a runc is asked to delete what is not there")
	}
}

func TestParseCreate(t *testing.T) {
	for args, want := range map[string]bool{
		"runc --root /r --log /l create --bundle /b --pid-file /b/pid id":                          true,
		"runc --root /r create --bundle /b --pid-file /b/pid --no-pivot --no-new-keyring id":       true,
		"runc --root /r create --bundle /b --pid-file /b/pid --console-socket /s id":               false,
		"runc --root /r create --bundle /b --pid-file /b/pid --preserve-fds 1 id":                  false,
		"runc --root /r create --bundle b --pid-file /b/pid id":                                    false,
		"runc --root /r create --bundle /b id":                                                     false,
		"runc --root /r --systemd-cgroup create --bundle /b --pid-file /b/pid id":                  false,
		"runc --root /r create --bundle /b --pid-file /b/pid --no-new-keyring --no-subreaper x id": false,
	} {
		c, ok := parse(strings.Fields(args))
		if ok {
			_, ok = c.creates(&exec.Cmd{})
		}
		if ok != want {
			t.Errorf("%s: %v", args, ok)
		}
	}
}
