package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// proa is killed again and again: containers run on, no acknowledged write is
// lost.
func TestKilled(t *testing.T) {
	c := up(t, "e2e-crash", 1)
	c.plumber()
	before := c.pods()
	times := 20
	if testing.Short() {
		times = 3
	}
	acknowledged := 0
	for i := range times {
		// Writes go on until the process is gone.
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("crash-%d", acknowledged)
				if _, err := c.kubectl("create", "configmap", name, "--from-literal=n="+fmt.Sprint(acknowledged)); err == nil {
					acknowledged++
				} else if _, err := c.kubectl("get", "configmap", name); err == nil {
					acknowledged++ // it was written, but the answer was lost
				}
			}
		}()
		<-time.After(time.Duration(100+rand.IntN(400)) * time.Millisecond)
		if err := syscall.Kill(c.Status.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		close(stop)
		<-done
		c.start(1)
		for n := range acknowledged {
			if n < acknowledged-3 && i < times-1 {
				continue // the last ones each time, all of them at the end
			}
			if v := c.k("get", "configmap", fmt.Sprintf("crash-%d", n), "-o", "jsonpath={.data.n}"); v != fmt.Sprint(n) {
				t.Fatalf("kill %d: write %d was acknowledged and is %q", i, n, v)
			}
		}
		if code, body, err := get("GET", c.Status.Ingress+"/parity?int=15"); err != nil || code != 200 {
			c.eventually(10*time.Second, func() error {
				if code, body, err = get("GET", c.Status.Ingress+"/parity?int=15"); err == nil && code != 200 {
					err = fmt.Errorf("%d %s", code, body)
				}
				return err
			})
		}
	}
	c.k("wait", "--for=condition=Ready", "pod", "-l", "app=plumber-on-k8s", "--timeout=60s")
	if after := c.pods(); !maps.Equal(before, after) {
		t.Errorf("the containers are not the same:\nbefore %v\nafter  %v", before, after)
	}
	t.Logf("%d kills, %d acknowledged writes, none lost", times, acknowledged)
}
