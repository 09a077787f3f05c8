package managedfields

import (
	"math/rand"
	"testing"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
)

// TestEveryServedKind writes every built-in kind in every version it is served in.
func TestEveryServedKind(t *testing.T) {
	catalog := kinds.Catalog()
	m := New(catalog, &openapi.Types{}, nil)
	for _, k := range catalog.All() {
		if k.Virtual {
			continue
		}
		served := []api.Served{{Kind: k}}
		for i := range k.Shapes {
			served = append(served, api.Served{Kind: k, Shape: &k.Shapes[i]})
		}
		for _, s := range served {
			r := newRandom(rand.Int63())
			var live api.Object
			for _, at := range served { // what one version manages, another writes
				obj := k.New()
				if live != nil {
					obj = live.DeepCopyObject().(api.Object)
				}
				obj.SetName("name")
				obj.SetLabels(map[string]string{"v": at.GVK().Version + string(rune('a'+r.Intn(26)))})
				if err := m.Update(at, live, obj, "m", "", t0); err != nil {
					t.Errorf("%v through %v: %v", s.GVK(), at.GVK(), err)
					continue
				}
				obj.SetUID("uid")
				live = obj
			}
			config := `{"apiVersion":"` + s.GVK().GroupVersion().String() + `","kind":"` + s.GVK().Kind + `","metadata":{"name":"name","annotations":{"a":"b"}}}`
			got, err := m.Apply(s, live, []byte(config), "ann", "", false, t0)
			if err != nil {
				t.Errorf("apply of %v: %v", s.GVK(), err)
				continue
			}
			if got.GetAnnotations()["a"] != "b" || len(got.GetManagedFields()) < 2 {
				t.Errorf("apply of %v gives %v", s.GVK(), got)
			}
			if _, err := m.Apply(s, nil, []byte(config), "ann", "", false, t0); err != nil {
				t.Errorf("create of %v by apply: %v", s.GVK(), err)
			}
		}
	}
}
