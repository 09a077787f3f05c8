package managedfields

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/randfill"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
)

// everyKind describes all kinds of client-go's scheme as if each version were a
// kind of its own.
func everyKind(t testing.TB) (*api.Catalog, []*api.Kind) {
	t.Helper()
	var kinds []*api.Kind
	known := scheme.Scheme.AllKnownTypes()
	for gvk := range known {
		if _, hasList := known[gvk.GroupVersion().WithKind(gvk.Kind+"List")]; !hasList {
			continue
		}
		obj, err := scheme.Scheme.New(gvk)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := obj.(api.Object); !ok {
			continue
		}
		plural, _ := meta.UnsafeGuessKindToResource(gvk)
		kinds = append(kinds, &api.Kind{
			GroupVersionKind: gvk, Resource: plural.Resource,
			New: func() api.Object {
				o, _ := scheme.Scheme.New(gvk)
				return o.(api.Object)
			},
			Subresources: []api.Subresource{{Name: "status"}},
		})
	}
	sort.Slice(kinds, func(i, j int) bool { return kinds[i].GroupVersionKind.String() < kinds[j].GroupVersionKind.String() })
	c, err := api.NewCatalog(kinds...)
	if err != nil {
		t.Fatal(err)
	}
	return c, kinds
}

// schemaTypes converts objects by the schema alone, without our adapter.
type schemaTypes struct{ types *openapi.Types }

func (s schemaTypes) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	sample, err := scheme.Scheme.New(obj.GetObjectKind().GroupVersionKind())
	if err != nil {
		return nil, err
	}
	t, err := s.types.Type(openapi.NameOf(sample))
	if err != nil {
		return nil, err
	}
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return t.FromUnstructured(u.Object, opts...)
	}
	return t.FromStructured(obj, opts...)
}

func (s schemaTypes) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	return &unstructured.Unstructured{Object: v.AsValue().Unstructured().(map[string]any)}, nil
}

type noDefaults struct{}

func (noDefaults) Default(runtime.Object) {}

// upstream is apimachinery's field manager as an API server sets it up.
func upstream(t testing.TB, types *openapi.Types, k *api.Kind, sub string) *managedfields.FieldManager {
	t.Helper()
	filters := map[fieldpath.APIVersion]fieldpath.Filter{}
	if f := filterOf(k, sub); f != nil {
		filters[fieldpath.APIVersion(k.GroupVersion().String())] = f
	}
	fm, err := managedfields.NewDefaultFieldManager(schemaTypes{types}, scheme.Scheme, noDefaults{}, scheme.Scheme, k.GroupVersionKind, k.GroupVersion(), sub, filters)
	if err != nil {
		t.Fatal(err)
	}
	return fm
}

type random struct {
	*rand.Rand
	fill *randfill.Filler
}

func newRandom(seed int64) *random {
	r := &random{Rand: rand.New(rand.NewSource(seed))}
	words := []string{"a", "b", "c", "web", "x<y&z", "kubernetes.io/e", `q"t`, "ü", "80", ""}
	r.fill = randfill.NewWithSeed(seed).NilChance(.35).NumElements(0, 3).MaxDepth(12).Funcs(
		func(s *string, c randfill.Continue) { *s = words[c.Intn(len(words))] },
		func(n *int32, c randfill.Continue) { *n = int32(c.Intn(4)) },
		func(n *int64, c randfill.Continue) { *n = int64(c.Intn(4)) },
		func(t *metav1.Time, c randfill.Continue) {
			if c.Intn(3) > 0 {
				*t = metav1.Unix(int64(c.Intn(3)+1), 0)
			}
		},
		func(t *metav1.MicroTime, c randfill.Continue) {
			*t = metav1.NewMicroTime(time.UnixMicro(int64(c.Intn(3))))
		},
		func(d *metav1.Duration, c randfill.Continue) { d.Duration = time.Duration(c.Intn(3)) * time.Second },
		func(q *resource.Quantity, c randfill.Continue) {
			*q = resource.MustParse([]string{"1", "1000m", "1Gi", "1073741824", "0"}[c.Intn(5)])
		},
		func(v *intstr.IntOrString, c randfill.Continue) {
			*v = []intstr.IntOrString{intstr.FromInt32(80), intstr.FromString("80"), intstr.FromString("http")}[c.Intn(3)]
		},
		func(x *runtime.RawExtension, c randfill.Continue) {
			x.Raw = []byte([]string{`{"a":1,"b":{"c":[1,2]}}`, `{"a":2,"b":{"d":"x"}}`, `{}`}[c.Intn(3)])
		},
		func(f *metav1.FieldsV1, c randfill.Continue) { f.SetRawString(`{"f:a":{}}`) },
		func(m *[]metav1.ManagedFieldsEntry, c randfill.Continue) { *m = nil },
	)
	return r
}

// change makes a neighbour of v: some parts other, most the same.
func (r *random) change(v reflect.Value, rate float64) {
	if r.Float64() < rate/4 && v.CanSet() {
		fresh := reflect.New(v.Type())
		r.fill.Fill(fresh.Interface())
		v.Set(fresh.Elem())
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			r.change(v.Elem(), rate)
		}
	case reflect.Struct:
		if reflect.PointerTo(v.Type()).Implements(marshalers) {
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				r.change(v.Field(i), rate)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return
		}
		for i := range v.Len() {
			r.change(v.Index(i), rate)
		}
		if n := v.Len(); n > 0 && r.Float64() < rate {
			switch r.Intn(3) {
			case 0:
				v.Set(v.Slice(0, n-1))
			case 1:
				v.Set(reflect.Append(v, v.Index(r.Intn(n))))
			default:
				reflect.Swapper(v.Interface())(0, n-1)
			}
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			if r.Float64() < rate {
				v.SetMapIndex(k, reflect.Value{})
			} else if r.Float64() < rate {
				fresh := reflect.New(v.Type().Elem())
				r.fill.Fill(fresh.Interface())
				v.SetMapIndex(k, fresh.Elem())
			}
		}
	}
}

// described makes managed fields comparable: times are only looked at for being there.
func described(t testing.TB, fields []metav1.ManagedFieldsEntry) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, f := range fields {
		s := &fieldpath.Set{}
		if err := s.FromJSON(strings.NewReader(f.FieldsV1.GetRawString())); err != nil {
			t.Fatal(err)
		}
		out[fmt.Sprint(f.Manager, " ", f.Operation, " ", f.APIVersion, " ", f.Subresource, " ", f.Time != nil)] = s.String()
	}
	return out
}

func compareFields(t testing.TB, what string, want, got []metav1.ManagedFieldsEntry) bool {
	t.Helper()
	w, g := described(t, want), described(t, got)
	if maps.Equal(w, g) && len(want) == len(got) {
		return true
	}
	t.Errorf("%s: managed fields differ", what)
	for _, k := range slices.Sorted(maps.Keys(w)) {
		if w[k] != g[k] {
			t.Errorf("%s\n%s", k, lineDiff(w[k], g[k]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(g)) {
		if _, ok := w[k]; !ok {
			t.Errorf("only ours has %s:\n%s", k, g[k])
		}
	}
	return false
}

func lineDiff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var b strings.Builder
	for _, l := range w {
		if !slices.Contains(g, l) {
			fmt.Fprintln(&b, "upstream:", l)
		}
	}
	for _, l := range g {
		if !slices.Contains(w, l) {
			fmt.Fprintln(&b, "ours:    ", l)
		}
	}
	return b.String()
}

// seed is another one when asked for: MANAGEDFIELDS_SEED=7 go test …
func seed() int64 {
	n, _ := strconv.ParseInt(os.Getenv("MANAGEDFIELDS_SEED"), 10, 64)
	return n * 1_000_000
}

// TestLikeUpstream drives both implementations through the same random writes.
func TestLikeUpstream(t *testing.T) {
	catalog, kinds := everyKind(t)
	types := &openapi.Types{}
	ours := New(catalog, types, nil)
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for n, k := range kinds {
		t.Run(strings.ReplaceAll(k.GroupVersionKind.String(), "/", "."), func(t *testing.T) {
			if openapi.NameOf(k.New()) == "" {
				t.Skip("has no schema")
			}
			fms := map[string]*managedfields.FieldManager{"": upstream(t, types, k, ""), "status": upstream(t, types, k, "status")}
			for round := range rounds {
				r := newRandom(seed() + int64(n*1000+round))
				var live api.Object
				for step := range 7 {
					obj := k.New()
					if live == nil || r.Intn(8) == 0 {
						r.fill.Fill(obj)
					} else {
						obj = live.DeepCopyObject().(api.Object)
						r.change(reflect.ValueOf(obj).Elem(), []float64{0, .03, .1, .3}[r.Intn(4)])
					}
					obj = decoded(t, k, obj)
					obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
					obj.SetName("name")
					if live != nil {
						obj.SetManagedFields(live.GetManagedFields())
						obj.SetUID(live.GetUID())
					}
					sub, manager := "", []string{"a", "b", "c", ""}[r.Intn(4)]
					if live != nil && r.Intn(3) == 0 {
						sub = "status"
					}
					what := fmt.Sprintf("round %d step %d by %q through %q", round, step, manager, sub)
					if r.Intn(4) == 0 {
						live = decoded(t, k, applyBoth(t, what, ours, fms[sub], k, live, config(t, k, obj, r), manager, sub, r.Intn(2) == 0))
						live.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
						live.SetUID("uid")
						if t.Failed() {
							return
						}
						continue
					}
					theirs := obj.DeepCopyObject().(api.Object)
					theirs.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
					from := k.New()
					if live != nil {
						from = live.DeepCopyObject().(api.Object)
					}
					from.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
					got, wantErr := fms[sub].Update(from, theirs, manager)
					err := ours.Update(api.Served{Kind: k}, live, obj, manager, sub, time.Now())
					if wantErr != nil {
						continue // such an object no validation lets through
					}
					if err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					if !compareFields(t, what, got.(api.Object).GetManagedFields(), obj.GetManagedFields()) {
						return
					}
					again, err := decode(obj.GetManagedFields(), nil)
					if err != nil {
						t.Fatal(err)
					}
					if !compareFields(t, what+", written and read", obj.GetManagedFields(), again.encode(nil)) {
						return
					}
					obj.SetUID("uid")
					live = obj
				}
			}
		})
	}
}

// decoded is an object as it comes from a client. It matters in one place:
// inside lists that are one field the library compares Go values, where nil and
// empty, or 1 and 1000m, are different; we compare what a client sees.
func decoded(t testing.TB, k *api.Kind, obj api.Object) api.Object {
	t.Helper()
	out := k.New()
	if err := json.Unmarshal([]byte(jsonOf(t, obj)), out); err != nil {
		t.Fatal(err)
	}
	return out
}

func jsonOf(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// config is some part of an object as somebody would apply it.
func config(t testing.TB, k *api.Kind, obj api.Object, r *random) []byte {
	t.Helper()
	u, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		t.Fatal(err)
	}
	var thin func(v any) any
	thin = func(v any) any {
		if l, ok := v.([]any); ok && len(l) > 0 {
			return []any{thin(l[r.Intn(len(l))])} // one item is never a duplicate
		}
		m, ok := v.(map[string]any)
		if !ok {
			return v
		}
		for key, x := range m {
			if x == nil || r.Intn(4) == 0 {
				delete(m, key)
			} else {
				m[key] = thin(x)
			}
		}
		return m
	}
	thin(u)
	u["apiVersion"], u["kind"] = k.GroupVersion().String(), k.GroupVersionKind.Kind
	md, _ := u["metadata"].(map[string]any)
	if md == nil {
		md = map[string]any{}
	}
	delete(md, "managedFields")
	delete(md, "uid")
	md["name"] = "name"
	u["metadata"] = md
	b, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sortedLines of an error: the library lists them in the order of a Go map.
func sortedLines(err error) string {
	lines := strings.Split(fmt.Sprint(err), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func applyBoth(t testing.TB, what string, ours *Manager, fm *managedfields.FieldManager, k *api.Kind, live api.Object, patch []byte, manager, sub string, force bool) api.Object {
	t.Helper()
	what = fmt.Sprintf("apply (force %v) of %s: %s", force, patch, what)
	config, err := decodeConfig(patch)
	if err != nil {
		t.Fatal(err)
	}
	from := k.New()
	if live != nil {
		from = live.DeepCopyObject().(api.Object)
	}
	before := from.DeepCopyObject()
	from.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	want, wantErr := fm.Apply(from, config, manager, force)
	got, err := ours.Apply(api.Served{Kind: k}, live, patch, manager, sub, force, time.Now())
	if live != nil && !reflect.DeepEqual(before, live.DeepCopyObject()) {
		t.Errorf("%s: live was changed", what)
	}
	if sortedLines(wantErr) != sortedLines(err) {
		t.Errorf("%s:\nupstream: %v\nours:     %v", what, wantErr, err)
	}
	if wantErr != nil || err != nil {
		if live == nil {
			return k.New()
		}
		return live
	}
	compareFields(t, what, want.(api.Object).GetManagedFields(), got.GetManagedFields())
	w, g := want.DeepCopyObject().(api.Object), got.DeepCopyObject().(api.Object)
	for _, o := range []api.Object{w, g} {
		o.SetManagedFields(nil)
		o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	if a, b := jsonOf(t, w), jsonOf(t, g); a != b {
		t.Errorf("%s: objects differ\nupstream: %s\nours:     %s", what, a, b)
	}
	return got
}
