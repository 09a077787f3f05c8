package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// The Plumber story, line by line.
func TestPlumber(t *testing.T) {
	c := up(t, "e2e-plumber", 1)
	c.plumber()
	url := c.Status.Ingress

	t.Run("twenty slow requests at once take as long as one", func(t *testing.T) {
		started := time.Now()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if code, body, err := get("GET", url+"/wait"); err != nil || code != 200 || !strings.Contains(body, `"time"`) {
					t.Errorf("%d %q %v", code, body, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(started); took > 12*time.Second {
			t.Errorf("20 requests took %s", took)
		}
	})

	t.Run("a pod that fails leaves, is restarted and comes back", func(t *testing.T) {
		if code, _, err := get("POST", url+"/fail"); err != nil || code != 200 {
			t.Fatal(code, err)
		}
		c.eventually(60*time.Second, func() error { return c.restarted(1) })
		c.k("wait", "--for=condition=Ready", "pod", "-l", "app=plumber-on-k8s", "--timeout=60s")
	})

	t.Run("a process that ends is restarted and counted", func(t *testing.T) {
		before := c.restarts()
		if code, _, err := get("POST", url+"/quit"); err != nil || code != 200 {
			t.Fatal(code, err)
		}
		c.eventually(60*time.Second, func() error { return c.restarted(before + 1) })
		c.k("wait", "--for=condition=Ready", "pod", "-l", "app=plumber-on-k8s", "--timeout=60s")
	})

	t.Run("a deleted pod is replaced at once", func(t *testing.T) {
		for name := range c.pods() {
			c.k("delete", "pod", name, "--wait=false")
			break
		}
		c.k("rollout", "status", "deployment/plumber-on-k8s-deployment", "--timeout=60s")
	})

	t.Run("down and up again: the same state", func(t *testing.T) {
		c.must(c.run("down", "--name", c.name, "--runtime-dir", c.runtimeDir))
		c.start(1)
		c.eventually(60*time.Second, func() error {
			code, body, err := get("GET", url+"/parity?int=15")
			if err == nil && (code != 200 || body != "odd") {
				err = fmt.Errorf("%d %q", code, body)
			}
			return err
		})
	})
}

func (c *cluster) restarts() (sum int) {
	for _, p := range c.pods() {
		n := 0
		fmt.Sscan(p, &n)
		sum += n
	}
	return sum
}

func (c *cluster) restarted(want int) error {
	if n := c.restarts(); n < want {
		return fmt.Errorf("%d restarts, not %d", n, want)
	}
	return nil
}
