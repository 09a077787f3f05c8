package state

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

const (
	writers   = 16
	contested = 6 // names that all writers write to
	namespace = metav1.NamespaceDefault
)

// TestKilled kills a server again and again while 16 clients write. What was
// acknowledged is there, nothing twice; what every client saw fits one order of all
// writes (linearizability), in which revisions grow; a watch sees each write once,
// across all restarts. PROA_DURABILITY_ROUNDS says how often.
func TestKilled(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	if n, err := strconv.Atoi(os.Getenv("PROA_DURABILITY_ROUNDS")); err == nil {
		rounds = n
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	encrypted := encryption(t, "configmaps: {aesgcm: {keys: [{name: k, secret: MDEyMzQ1Njc4OTAxMjM0NQ==}]}},{identity: {}}")
	plain := encryption(t, "configmaps: {identity: {}},{aesgcm: {keys: [{name: k, secret: MDEyMzQ1Njc4OTAxMjM0NQ==}]}}")

	s := newServer(t, "")
	s.up("--encryption-provider-config", plain)
	clients := make([]*kubernetes.Clientset, 4)
	for i := range clients {
		clients[i] = s.client()
	}
	w := follow(t, s)
	began := time.Now()
	now := func() int64 { return time.Since(began).Nanoseconds() }
	before := map[string]string{}
	total, slowest := 0, time.Duration(0)
	for round := range rounds {
		start := now()
		ctx, cancel := context.WithCancel(t.Context())
		logs := make([][]op, writers)
		var wg sync.WaitGroup
		for i := range writers {
			one := &writer{id: i, round: round, maps: clients[i%len(clients)].CoreV1().ConfigMaps(namespace), now: now, rand: rand.New(rand.NewPCG(seed, uint64(round*writers+i+2)))}
			wg.Go(func() { logs[i] = one.run(ctx) })
		}
		<-time.After(time.Duration(20+r.IntN(380)) * time.Millisecond)
		s.kill()
		gone := now()
		cancel()
		wg.Wait()
		if r.IntN(4) == 0 { // and again, while it starts
			s.begin("--encryption-provider-config", plain)
			<-time.After(time.Duration(r.IntN(150)) * time.Millisecond)
			s.kill()
		}
		slowest = max(slowest, s.up("--encryption-provider-config", []string{plain, encrypted}[round%2]))

		var ops []op
		for _, o := range slices.Concat(logs...) {
			switch {
			case o.outcome != unknown:
				ops = append(ops, o)
			case o.begin < gone:
				o.ended = gone // nobody can have done it after that
				ops = append(ops, o)
			}
		}
		total += len(ops)
		after := check(t, s, w, round, ops, before, start, now())
		if t.Failed() {
			t.Fatalf("round %d of %d, seed %d; the server's data is in %s", round, rounds, seed, s.dir)
		}
		before = after
	}
	t.Logf("%d kills, %d operations, %d events of one watch, slowest start %s", rounds, total, len(w.events), slowest.Round(time.Millisecond))
}

// check a round, and clear away what only it needed. It returns what is there.
func check(t *testing.T, s *server, w *watcher, round int, ops []op, before map[string]string, began, ended int64) map[string]string {
	t.Helper()
	objects := s.api.CoreV1().ConfigMaps(namespace)
	marker, err := objects.Create(t.Context(), configMap("marker", round, fmt.Sprint("marker-", round)), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := objects.Delete(t.Context(), "marker", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	list, err := objects.List(t.Context(), metav1.ListOptions{LabelSelector: "round"})
	if err != nil {
		t.Fatal(err)
	}
	after, revisions, writes := map[string]string{}, map[string]int64{}, map[string]int{}
	for _, m := range list.Items {
		after[m.Name], revisions[m.Name] = m.Data["value"], number(m.ResourceVersion)
		if writes[m.Data["value"]]++; writes[m.Data["value"]] > 1 {
			t.Errorf("%s was written twice", m.Data["value"])
		}
	}
	if err := checkLinearizable(ops, before, after, began, ended); err != nil {
		t.Error(err)
	}
	if err := checkRevisions(ops); err != nil {
		t.Error(err)
	}
	w.check(t, number(marker.ResourceVersion), number(list.ResourceVersion), ops, revisions)
	if err := objects.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: fmt.Sprintf("round=%d,once", round)}); err != nil {
		t.Error(err)
	}
	for _, m := range list.Items {
		if _, once := m.Labels["once"]; once {
			delete(after, m.Name)
		}
	}
	return after
}

func configMap(name string, round int, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"round": fmt.Sprint(round)}}, Data: map[string]string{"value": value}}
}

// writer is one client. What it writes is unique in the whole test.
type writer struct {
	id, round int
	maps      typedv1.ConfigMapInterface
	now       func() int64
	rand      *rand.Rand
	ops       []op
	seen      map[string]*corev1.ConfigMap
}

// run until an answer is lost, or ctx ends.
func (w *writer) run(ctx context.Context) []op {
	w.seen = map[string]*corev1.ConfigMap{}
	for n := 0; ctx.Err() == nil; n++ {
		value := fmt.Sprintf("%d-%d-%d", w.round, w.id, n)
		name := fmt.Sprint("r", w.rand.IntN(contested))
		seen := w.seen[name]
		switch pick := w.rand.IntN(10); {
		case pick < 2: // a name of its own
			m := configMap("u"+value, w.round, value)
			m.Labels["once"] = ""
			w.create(ctx, m)
		case pick < 3: // a name that the server chooses: twice is not refused by itself
			m := configMap("", w.round, value)
			m.GenerateName, m.Labels["once"] = "g"+value+"-", ""
			w.create(ctx, m)
		case pick < 4:
			w.note(op{kind: "delete", name: name}, func(o *op) error { return w.maps.Delete(ctx, name, metav1.DeleteOptions{}) })
			delete(w.seen, name)
		case pick < 6 || seen == nil:
			w.note(op{kind: "get", name: name}, func(o *op) error {
				m, err := w.maps.Get(ctx, name, metav1.GetOptions{})
				if err == nil {
					o.value, w.seen[name] = m.Data["value"], m
				} else if apierrors.IsNotFound(err) {
					delete(w.seen, name)
					err = nil
				}
				return err
			})
			if w.seen[name] == nil && w.rand.IntN(2) == 0 {
				w.create(ctx, configMap(name, w.round, value+"c"))
			}
		default:
			m := seen.DeepCopy()
			m.Data["value"] = value
			w.note(op{kind: "update", name: name, from: seen.Data["value"], value: value}, func(o *op) error {
				m, err := w.maps.Update(ctx, m, metav1.UpdateOptions{})
				if err == nil {
					o.rv, w.seen[name] = number(m.ResourceVersion), m
				} else {
					delete(w.seen, name)
				}
				return err
			})
		}
		if len(w.ops) > 0 && w.ops[len(w.ops)-1].outcome == unknown {
			break
		}
	}
	return w.ops
}

func (w *writer) create(ctx context.Context, m *corev1.ConfigMap) {
	w.note(op{kind: "create", name: m.Name, value: m.Data["value"]}, func(o *op) error {
		got, err := w.maps.Create(ctx, m, metav1.CreateOptions{})
		if err == nil {
			o.name, o.rv = got.Name, number(got.ResourceVersion)
		}
		return err
	})
}

// note what an operation was and how it went.
func (w *writer) note(o op, do func(*op) error) {
	o.client, o.begin = w.id, w.now()
	err := do(&o)
	o.ended = w.now()
	switch {
	case err == nil:
	case apierrors.IsConflict(err), apierrors.IsNotFound(err), apierrors.IsAlreadyExists(err):
		o.outcome = refused
	default:
		o.outcome = unknown
		if o.name == "" { // the server chose a name, and did not come to tell
			return
		}
	}
	w.ops = append(w.ops, o)
}
