package controllertest

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/client"
)

// TestDice: what goes wrong follows from the seed, often enough and not too often,
// and what happens to one stream does not depend on the others.
func TestDice(t *testing.T) {
	fall := func(seed uint64, between func(*dice)) (hits []int) {
		d := newDice(seed)
		for i := range 1000 {
			if what, hit := d.now("a", 5, 6); hit {
				hits = append(hits, i*10+what)
			}
			between(d)
		}
		return hits
	}
	nothing := func(*dice) {}
	hits := fall(1, nothing)
	if len(hits) < 150 || len(hits) > 260 {
		t.Errorf("%d of 1000 are hit, not one of 5", len(hits))
	}
	for i, last := 0, -1; i < len(hits); i++ {
		if hits[i]/10-last > 9 {
			t.Errorf("nothing goes wrong from %d to %d", last, hits[i]/10)
		}
		last = hits[i] / 10
	}
	if !slices.Equal(hits, fall(1, nothing)) || !slices.Equal(hits, fall(1, func(d *dice) { d.now("b", 3, 2) })) {
		t.Error("the same seed leads to something else")
	}
	if slices.Equal(hits, fall(2, nothing)) {
		t.Error("another seed leads to the same")
	}
}

// TestWatch: however a watch fares, whoever follows it knows in the end what is there,
// and is told of each change what it changed from.
func TestWatch(t *testing.T) {
	c := New(t, 20)
	k := client.For[*corev1.ConfigMap](c.Conn).Kind()
	w, err := c.Shaky.Watch(t.Context(), k, client.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, viewed := w.(client.Viewer); viewed {
		t.Fatal("it shows more than it has told")
	}
	const n = 5
	names := []string{"a", "b", "c", "d", "e"}
	go func() {
		for round := range 60 {
			for i, name := range names {
				_ = client.For[*corev1.ConfigMap](c.Conn).Delete(t.Context(), "default", name, metav1.DeleteOptions{})
				if round == 59 && i == 0 {
					continue
				}
				_, _ = client.For[*corev1.ConfigMap](c.Conn).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Data: map[string]string{"last": map[bool]string{true: "yes"}[round == 59]}})
			}
		}
	}()
	known := map[string]client.Event{}
	for done := false; !done; {
		batch, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range batch {
			have, was := known[key(about(e))]
			switch {
			case was != (e.Old != nil):
				t.Fatalf("told of %s: known before: %v, told from: %v", key(about(e)), was, e.Old)
			case e.New == nil:
				delete(known, key(e.Old))
				continue
			case was && have.New.GetUID() != e.New.GetUID():
				t.Fatalf("one %s became another", key(e.New))
			}
			known[key(e.New)] = e
		}
		last := 0
		for _, e := range known {
			if e.New.(*corev1.ConfigMap).Data["last"] == "yes" {
				last++
			}
		}
		done = last == n-1 && len(known) == n-1
	}
}
