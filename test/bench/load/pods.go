package load

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/proa-dev/proa/test/bench/figure"
)

// Pods is the load of pods that really run: first one at a time, then many at
// once, as a client sees them by a watch.
type Pods struct {
	Image string // whose program runs until it is told to end; nodes have it or can pull it
	One   int    // pods one at a time
	Burst int    // pods at once
}

const (
	podsNamespace = "podbench"
	realPodsPath  = "/api/v1/namespaces/" + podsNamespace + "/pods"
	podPatience   = 2 * time.Minute
)

// Run the load and delete what it made.
func (l *Pods) Run(ctx context.Context, t *Target, add Add) error {
	if err := t.namespace(ctx, podsNamespace); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &seen{ready: map[string]time.Time{}, gone: map[string]time.Time{}, changed: make(chan struct{})}
	opened := make(chan struct{})
	go func() {
		cancel(t.watch(ctx, realPodsPath+"?watch=1&timeoutSeconds=1200", sync.OnceFunc(func() { close(opened) }), s.event))
	}()
	<-opened
	// The first pod has the image pulled.
	if _, _, err := l.life(ctx, t, s, "warm"); err != nil {
		return err
	}
	if err := l.single(ctx, t, s, add); err != nil {
		return err
	}
	return l.burst(ctx, t, s, add)
}

func (l *Pods) single(ctx context.Context, t *Target, s *seen, add Add) error {
	var starts, deletes []time.Duration
	for i := range l.One {
		start, remove, err := l.life(ctx, t, s, fmt.Sprintf("one-%d", i))
		if err != nil {
			return err
		}
		starts, deletes = append(starts, start), append(deletes, remove)
	}
	add("a pod, create to Ready", figure.Milliseconds, ms(l.show(t, "create to Ready", starts)))
	add("a pod, delete to gone", figure.Milliseconds, ms(l.show(t, "delete to gone", deletes)))
	return nil
}

// show the durations and return their median.
func (l *Pods) show(t *Target, what string, took []time.Duration) time.Duration {
	slices.Sort(took)
	t.Log("%-28s min %6.0f   p50 %6.0f   p90 %6.0f   max %6.0f ms", what,
		ms(took[0]), ms(took[len(took)/2]), ms(took[len(took)*9/10]), ms(took[len(took)-1]))
	return took[len(took)/2]
}

func (l *Pods) burst(ctx context.Context, t *Target, s *seen, add Add) error {
	names := make([]string, l.Burst)
	began := time.Now()
	for i := range names {
		names[i] = fmt.Sprintf("burst-%d", i)
		if err := l.create(ctx, t, names[i]); err != nil {
			return err
		}
	}
	last, err := s.last(ctx, s.ready, names)
	if err != nil {
		return err
	}
	rate := float64(l.Burst) / last.Sub(began).Seconds()
	t.Log("%-28s %6.1f pods/s", "burst", rate)
	add(fmt.Sprintf("%d pods at once", l.Burst), figure.PerSecond, rate)
	began = time.Now()
	for _, name := range names {
		if err := l.remove(ctx, t, name); err != nil {
			return err
		}
	}
	if last, err = s.last(ctx, s.gone, names); err != nil {
		return err
	}
	add(fmt.Sprintf("delete %d pods", l.Burst), figure.Seconds, last.Sub(began).Seconds())
	return nil
}

// life of one pod.
func (l *Pods) life(ctx context.Context, t *Target, s *seen, name string) (start, remove time.Duration, err error) {
	began := time.Now()
	if err := l.create(ctx, t, name); err != nil {
		return 0, 0, err
	}
	at, err := s.last(ctx, s.ready, []string{name})
	if err != nil {
		return 0, 0, err
	}
	start, began = at.Sub(began), time.Now()
	if err := l.remove(ctx, t, name); err != nil {
		return 0, 0, err
	}
	at, err = s.last(ctx, s.gone, []string{name})
	return start, at.Sub(began), err
}

func (l *Pods) create(ctx context.Context, t *Target, name string) error {
	object := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q},"spec":{"terminationGracePeriodSeconds":0,"containers":[{"name":"c","image":%q,"imagePullPolicy":"IfNotPresent"}]}}`, name, l.Image)
	_, err := t.do(ctx, request{"POST", realPodsPath, jsonType, "", object}, 201)
	return err
}

func (l *Pods) remove(ctx context.Context, t *Target, name string) error {
	_, err := t.do(ctx, request{method: "DELETE", path: realPodsPath + "/" + name}, 200, 202)
	return err
}

// seen is when pods were first Ready and when they were gone, by a watch.
type seen struct {
	mu          sync.Mutex
	ready, gone map[string]time.Time
	changed     chan struct{} // closed by the next event
}

func (s *seen) event(line []byte) bool {
	var e struct {
		Type   string
		Object struct {
			Metadata struct{ Name string }
			Status   struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	now := time.Now()
	if json.Unmarshal(line, &e) != nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := e.Object.Metadata.Name
	if e.Type == "DELETED" {
		s.gone[name] = now
	}
	for _, c := range e.Object.Status.Conditions {
		if _, already := s.ready[name]; c.Type == "Ready" && c.Status == "True" && !already {
			s.ready[name] = now
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return true
}

// last waits until all names are in the map, which is s.ready or s.gone, and
// returns the latest time.
func (s *seen) last(ctx context.Context, in map[string]time.Time, names []string) (time.Time, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, podPatience, fmt.Errorf("the pods are not there after %s", podPatience))
	defer cancel()
	for {
		var latest time.Time
		n := 0
		s.mu.Lock()
		for _, name := range names {
			if at, ok := in[name]; ok {
				n++
				if at.After(latest) {
					latest = at
				}
			}
		}
		changed := s.changed
		s.mu.Unlock()
		if n == len(names) {
			return latest, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return latest, fmt.Errorf("%d of %d pods (%s …): %w", n, len(names), names[0], context.Cause(ctx))
		}
	}
}
