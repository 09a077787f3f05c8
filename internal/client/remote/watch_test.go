package remote

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/client"
)

// TestReplaced: while the watch was away, an object went and another of its name
// came. Whoever keeps something about the first has to hear of its end.
func TestReplaced(t *testing.T) {
	k, _ := kinds.Catalog().Type(&corev1.ConfigMap{})
	e := &events{kind: k, table: client.NewTable(k), synced: make(chan struct{}), wake: make(chan struct{}, 1)}
	object := func(uid types.UID, revision string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", UID: uid, ResourceVersion: revision}}
	}
	told := func(o *corev1.ConfigMap) []client.Event {
		if err := e.Replace([]any{o}, ""); err != nil {
			t.Fatal(err)
		}
		batch, err := e.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return batch
	}
	if got := told(object("one", "1")); len(got) != 1 || got[0].Old != nil {
		t.Errorf("the first: %v", got)
	}
	if got := told(object("one", "2")); len(got) != 1 || got[0].Old == nil || got[0].New == nil {
		t.Errorf("changed: %v", got)
	}
	got := told(object("two", "3"))
	if len(got) != 2 || got[0].New != nil || got[0].Old.GetUID() != "one" || got[1].Old != nil || got[1].New.GetUID() != "two" {
		t.Errorf("replaced: %v", got)
	}
}
