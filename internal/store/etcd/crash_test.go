package etcd

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"

	"github.com/proa-dev/proa/internal/store"
)

const crashDir = "PROA_TEST_STORE_TO_WRITE"

// TestMain lets the test's own binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		writeUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// writeUntilKilled says on its output which keys were acknowledged, and at which
// revision.
func writeUntilKilled(dir string) {
	ctx := context.Background()
	s, err := Open(ctx, Config{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("/w%d/%d-%d", w, os.Getpid(), i)
				rev, err := s.Commit(ctx, store.Write{Key: key, Value: []byte(key)}, store.Write{Key: "/twin" + key, Value: []byte(key)})
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Println(key, rev)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// TestKilled kills a writing process three times. What was acknowledged is there
// at its revision; of a transaction, all or nothing.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acked := map[string]string{}
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		n := 0
		for lines.Scan() {
			key, rev, ok := bytes.Cut(lines.Bytes(), []byte(" "))
			if _, err := strconv.Atoi(string(rev)); !ok || err != nil {
				break // cut off by the kill
			}
			acked[string(key)] = string(rev)
			if n++; n == 500+300*round {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		if n < 500 {
			t.Fatalf("only %d writes: %s", n, &stderr)
		}
	}
	s := open(t, Config{Dir: dir})
	found := map[string]string{}
	if _, err := s.Range(t.Context(), "/", store.RangeOptions{}, func(e store.Entry) bool {
		found[e.Key] = fmt.Sprint(e.Revision)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for key, rev := range acked {
		if found[key] != rev {
			t.Errorf("%s was acknowledged at %s, found at %q", key, rev, found[key])
		}
	}
	for key, rev := range found {
		twin, ok := bytes.CutPrefix([]byte(key), []byte("/twin"))
		if !ok {
			twin = []byte("/twin" + key)
		}
		if found[string(twin)] != rev {
			t.Errorf("%s at %s has its twin at %q", key, rev, found[string(twin)])
		}
	}
}
