package managedfields

import (
	"errors"
	"testing"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
)

// TestCreated holds what is written in one pass to what a comparison with nothing finds.
func TestCreated(t *testing.T) {
	catalog, kinds := everyKind(t)
	m := New(catalog, &openapi.Types{}, nil)
	written, uneven := 0, 0
	for n, k := range kinds {
		if openapi.NameOf(k.New()) == "" {
			continue
		}
		r := newRandom(seed() + int64(n))
		for round := range 20 {
			obj := k.New()
			if round > 0 {
				r.fill.Fill(obj)
			}
			obj = decoded(t, k, obj)
			obj.SetManagedFields(nil)
			kind := api.Served{Kind: k}
			version := k.GroupVersion().String()
			got, err := m.created(kind, obj, version, "")
			if errors.Is(err, errUneven) {
				uneven++
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			c := comparison{m: m, kind: kind, obj: obj}
			own, err := c.at(version, "")
			if err != nil {
				continue // such an object no validation lets through
			}
			written++
			want := minus(without(own.changed, resetFields(k, "")), stripped)
			if want == nil {
				if got != nil {
					t.Errorf("%s: %s, want none", k.GroupVersionKind, got.GetRawBytes())
				}
				continue
			}
			if got == nil || string(got.GetRawBytes()) != string(appendSet(nil, want)) {
				t.Fatalf("%s:\n%s\nby comparison:\n%s", k.GroupVersionKind, got, appendSet(nil, want))
			}
		}
	}
	if written < 3*uneven {
		t.Errorf("%d objects were written in one pass, %d could not be", written, uneven)
	}
}
