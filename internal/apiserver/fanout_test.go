package apiserver

import (
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/negotiate"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
	"github.com/proa-dev/proa/internal/cache"
)

// encodes counts how often it is encoded.
type encodes struct {
	*corev1.ConfigMap
	times *atomic.Int64
}

func (e encodes) MarshalJSON() ([]byte, error) {
	e.times.Add(1)
	return []byte(`{"metadata":{"name":"a"}}`), nil
}

// TestAnEventIsEncodedOnce, however many watch.
func TestAnEventIsEncodedOnce(t *testing.T) {
	k, ok := kinds.Catalog().Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"})
	if !ok {
		t.Fatal("no ConfigMaps")
	}
	var times atomic.Int64
	item := &cache.Item{Object: encodes{&corev1.ConfigMap{}, &times}, Revision: 7}
	for range 300 {
		to := httptest.NewRecorder()
		out := &watchWriter{w: &response{ResponseWriter: to}, kind: api.Served{Kind: k.Kind}, want: negotiate.Want{Media: wire.JSON}}
		if err := out.event(verbs.Event{Type: watch.Added, Item: item}); err != nil {
			t.Fatal(err)
		}
		if err := out.flush(); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(to.Body.String(), `{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}}`) {
			t.Fatal(to.Body)
		}
	}
	if times.Load() != 1 {
		t.Errorf("the object was encoded %d times", times.Load())
	}
}

// TestPace: few watches are told at once; of many each waits the longer the more they are.
func TestPace(t *testing.T) {
	for watches, want := range map[int64]time.Duration{
		0: 0, crowd: 0, crowd + 1: 10100 * time.Microsecond, 300: 30 * time.Millisecond, 1000: paceMost, 1 << 40: paceMost,
	} {
		if got := pace(watches); got != want {
			t.Errorf("%d watches: %s, want %s", watches, got, want)
		}
	}
}

// TestACrowdMissesNothing: events that come while a watch rests are told after, in order.
func TestACrowdMissesNothing(t *testing.T) {
	h := newHarness(t)
	h.server.metrics.watching(10 * crowd)
	next := h.watch(cms + "?watch=1" + slowWatch)
	want := []string{"a", "b", "c", "d", "e"}
	for _, n := range want {
		h.ok("POST", cms, cm(n, "1"))
	}
	for _, n := range want {
		if typ, obj := next(); typ != "ADDED" || name(obj) != n {
			t.Fatalf("got %s %s, want ADDED %s", typ, name(obj), n)
		}
	}
}
