package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/proa-dev/proa/internal/store/memory"

	corev1 "k8s.io/api/core/v1"
)

// TestLabelIndex: what an index of labels shows is what looking at every object
// shows, at any time, also of states that are past, and from a place on.
func TestLabelIndex(t *testing.T) {
	c := start(t, memory.New(), Config{})
	set := c.Of(pods)
	r := rand.New(rand.NewPCG(7, 7))
	var items []*Item
	made := 0
	labelled := func() *corev1.Pod {
		made++
		p := pod(fmt.Sprint("ns", r.IntN(3)), fmt.Sprintf("p%05d", made), "", fmt.Sprint(r.IntN(20)))
		switch r.IntN(5) {
		case 0:
			p.Labels = nil
		case 1:
			p.Labels["w"] = fmt.Sprint(r.IntN(300))
		}
		return p
	}
	for range 3 * labelFrom {
		items = append(items, create(t, c, pods, labelled()))
	}
	change := func() {
		switch n := r.IntN(len(items)); r.IntN(4) {
		case 0:
			items = append(items, create(t, c, pods, labelled()))
		case 1:
			remove(t, c, pods, items[n])
			items = slices.Delete(items, n, n+1)
		default:
			p := labelled()
			p.Namespace, p.Name = items[n].Object.GetNamespace(), items[n].Object.GetName()
			items[n] = update(t, c, pods, items[n], p)
		}
	}
	ask := func(snap Snapshot, labels []Label, ns, fromNS, fromName string) (got, want []string, by bool) {
		all := func(i *Item) bool {
			for _, l := range labels {
				if v, ok := i.Object.GetLabels()[l.Key]; !ok || !slices.Contains(l.Values, v) {
					return true
				}
			}
			want = append(want, fmt.Sprint(i.key, "@", i.Revision))
			return true
		}
		by = snap.(Labelled).ByLabels(labels, ns, fromNS, fromName, all)
		got, want = want, nil
		snap.Ascend(ns, fromNS, fromName, all)
		return got, want, by
	}
	one := []Label{{"v", []string{"7"}}}
	for n, indexed := range []bool{false, true, true} {
		if _, _, by := ask(set.Snapshot(), one, "", "", ""); by != (indexed && n >= labelTimes) {
			t.Errorf("asked %d times: by an index %v", n+1, by)
		}
	}
	for i := range 300 {
		then := set.Snapshot()
		for range 1 + r.IntN(5) {
			change()
		}
		snap := set.Snapshot()
		switch r.IntN(3) {
		case 0:
			snap = then
		case 1:
			var err error
			if snap, err = set.SnapshotAt(then.Revision()); err != nil {
				t.Fatal(err)
			}
		}
		labels := [][]Label{one, {{"v", []string{"3", "5", "3"}}}, {{"v", []string{"1"}}, {"w", []string{"17"}}}, {{"w", []string{"1", "2"}}}}[i%4]
		ns, from := []string{"", "ns1"}[r.IntN(2)], ""
		if r.IntN(2) == 0 {
			from = fmt.Sprintf("p%05d", r.IntN(3*labelFrom))
		}
		got, want, by := ask(snap, labels, ns, ns, from)
		if by && !slices.Equal(got, want) {
			t.Fatalf("%v in %q from %q: %d by the index, %d are there\n%v\n%v", labels, ns, from, len(got), len(want), got, want)
		}
		if !by && ns == "" && i > 50 {
			t.Fatalf("%v: not by an index", labels)
		}
	}
	set.sweep(time.Now().Add(labelFor - time.Minute))
	if n := len(set.now.labels); n != 2 {
		t.Errorf("%d indexes, want 2", n)
	}
	set.sweep(time.Now().Add(labelFor + time.Minute))
	if n := len(set.now.labels); n != 0 {
		t.Errorf("%d indexes are left that nobody asks for", n)
	}
}

// TestLabelsAreFew: not every label that somebody asks for gets an index.
func TestLabelsAreFew(t *testing.T) {
	c := start(t, memory.New(), Config{})
	set := c.Of(pods)
	for i := range labelFrom {
		create(t, c, pods, pod("ns", fmt.Sprint("p", i), "", "1"))
	}
	for range 3 {
		for key := range 3 * labelMost {
			set.Snapshot().(Labelled).ByLabels([]Label{{fmt.Sprint("k", key), []string{"x"}}}, "", "", "", func(*Item) bool { return true })
		}
	}
	if n := len(set.now.labels); n != labelMost {
		t.Errorf("%d indexes, want %d", n, labelMost)
	}
}

// TestWatchByLabel: who watches one value of a label is told when objects get it, have
// it and lose it, and nothing else wakes them.
func TestWatchByLabel(t *testing.T) {
	c := start(t, memory.New(), Config{})
	set := c.Of(pods)
	create(t, c, pods, pod("ns", "first", "", "a"))
	for _, late := range []bool{false, true} {
		var after int64
		if late {
			after = c.Revision()
		}
		w, err := set.WatchFrom(WatchOptions{Scope: Scope{Namespace: "ns"}, Label: "v", LabelValue: "a", After: after})
		if err != nil {
			t.Fatal(err)
		}
		if after == 0 { // what is there comes first
			if got := next(t, w); got != "+ first" {
				t.Errorf("got %q", got)
			}
		}
		name := fmt.Sprint("p", after)
		i := create(t, c, pods, pod("ns", name, "", "b"))
		create(t, c, pods, pod("elsewhere", name, "", "a"))
		if len(w.queue) != 0 {
			t.Errorf("told of %v", w.queue)
		}
		for _, step := range []struct{ label, want string }{{"a", "+ "}, {"a", "~ "}, {"b", "- "}, {"a", "+ "}} {
			i = update(t, c, pods, i, pod("ns", name, "", step.label))
			if got := next(t, w); got != step.want+name {
				t.Errorf("label %s: got %q, want %s", step.label, got, step.want)
			}
		}
		remove(t, c, pods, i)
		if got := next(t, w); got != "- "+name {
			t.Errorf("got %q", got)
		}
		w.Stop()
		if len(set.watch.label) != 0 || len(set.watch.every) != 0 {
			t.Error("the watch was not forgotten")
		}
	}
}

// BenchmarkLabelled is what a write of one of 50,000 objects costs beside a number of
// indexes of labels, and 1,000 watches of other values of one.
func BenchmarkLabelled(b *testing.B) {
	for _, indexes := range []int{0, 1, 4} {
		b.Run(fmt.Sprint("indexes=", indexes), func(b *testing.B) {
			c := start(b, stored(b, 50_000), Config{})
			set := c.Of(pods)
			for range 3 {
				for i := range indexes {
					set.Snapshot().(Labelled).ByLabels([]Label{{[]string{"v", "x", "y", "z"}[i], []string{"1"}}}, "", "", "", func(*Item) bool { return false })
				}
			}
			for i := range 1000 * min(indexes, 1) {
				if _, err := set.Watch(WatchOptions{Label: "v", LabelValue: fmt.Sprint("w", i), After: c.Revision()}); err != nil {
					b.Fatal(err)
				}
			}
			item := set.Get("ns1", "pod-1")
			obj := bigPod("ns1", "pod-1")
			obj.Labels = map[string]string{"v": "1", "x": "1", "y": "2", "z": "3"}
			value := encode(b, obj)
			for b.Loop() {
				twin := *obj
				items, _, err := c.Commit(context.Background(), Change{Kind: pods, Namespace: "ns1", Name: "pod-1", Prior: item.Revision, Object: &twin, Value: value})
				if err != nil {
					b.Fatal(err)
				}
				item = items[0]
			}
		})
	}
}
