package kinds

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/randfill"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/api/wire/objectjson"
)

// filler makes objects with something in every field.
func filler(seed int64) *randfill.Filler {
	return randfill.NewWithSeed(seed).NilChance(.2).NumElements(1, 2).MaxDepth(12).Funcs(
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewQuantity(c.Int63n(1000), resource.DecimalSI)
		},
		func(t *metav1.Time, c randfill.Continue) { *t = metav1.Unix(c.Int63n(1<<31), 0) },
		func(t *metav1.MicroTime, c randfill.Continue) {
			*t = metav1.NewMicroTime(time.UnixMicro(c.Int63n(1 << 50)))
		},
		func(v *intstr.IntOrString, c randfill.Continue) {
			if c.Bool() {
				*v = intstr.FromInt32(c.Int31n(65535))
			} else {
				*v = intstr.FromString(text(c))
			}
		},
		func(r *runtime.RawExtension, c randfill.Continue) { r.Raw = []byte(`{"a":"` + text(c) + `"}`) },
		func(f *metav1.FieldsV1, c randfill.Continue) { f.Raw = []byte(`{"f:a":{}}`) },
		func(t *metav1.TypeMeta, c randfill.Continue) { *t = metav1.TypeMeta{} },
		func(s *string, c randfill.Continue) { *s = text(c) },
		// what a schema says in one of two shapes, and any JSON at all
		func(j *apiextensionsv1.JSON, c randfill.Continue) { j.Raw = []byte(`{"a":"` + text(c) + `"}`) },
		func(p *apiextensionsv1.JSONSchemaPropsOrBool, c randfill.Continue) { p.Allows = true },
		func(p *apiextensionsv1.JSONSchemaPropsOrArray, c randfill.Continue) {
			p.Schema = &apiextensionsv1.JSONSchemaProps{Type: text(c)}
		},
		func(p *apiextensionsv1.JSONSchemaPropsOrStringArray, c randfill.Continue) {
			p.Property = []string{text(c)}
		},
	)
}

func text(c randfill.Continue) string { return strings.ToLower(fmt.Sprintf("s%x", c.Int31())) }

func fresh(t *testing.T, kind *api.Kind, seed int64) api.Object {
	t.Helper()
	obj := kind.New()
	filler(seed).Fill(obj)
	obj.GetObjectKind().SetGroupVersionKind(obj.GetObjectKind().GroupVersionKind().GroupVersion().WithKind(""))
	reflect.ValueOf(obj).Elem().FieldByName("TypeMeta").SetZero()
	return obj
}

func TestCatalog(t *testing.T) {
	c := Catalog()
	for _, k := range c.All() {
		if got, ok := c.Type(k.New()); !ok || got != k {
			t.Errorf("%s is not found by its Go type", k.Kind)
		}
		if !k.Virtual && k.NewList == nil {
			t.Errorf("%s has no list", k.Kind)
		}
		if k.Resource != strings.ToLower(k.Resource) || k.Resource == "" {
			t.Errorf("%s: resource %q", k.Kind, k.Resource)
		}
	}
}

// TestEveryKindInJSON is written as by encoding/json and read as by sigs.k8s.io/json,
// whatever is in it.
func TestEveryKindInJSON(t *testing.T) {
	for _, kind := range All() {
		for range 5 {
			seed := rand.Int64()
			obj := fresh(t, kind, seed)
			want, err := json.Marshal(obj)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := wire.Body(obj, wire.JSON); err != nil || string(got) != string(want) {
				t.Fatalf("%s, seed %d: %v\n got %s\nwant %s", kind.Kind, seed, err, got, want)
			}
			read, lib := kind.New(), kind.New()
			if !objectjson.Read(want, read) {
				continue // it has something that only the library reads
			}
			if _, err := kjson.UnmarshalStrict(want, lib); err != nil || !reflect.DeepEqual(read, lib) {
				t.Fatalf("%s, seed %d: read %#v\nwant %#v %v", kind.Kind, seed, read, lib, err)
			}
		}
	}
}

func TestEveryKindSurvivesTheWire(t *testing.T) {
	for _, kind := range All() {
		t.Run(kind.Group+"."+kind.Kind, func(t *testing.T) {
			seed := rand.Int64()
			t.Logf("seed %d", seed)
			obj := fresh(t, kind, seed)
			if kind.Default != nil {
				kind.Default(obj)
			}
			for _, m := range []wire.Media{wire.JSON, wire.Protobuf, wire.YAML} {
				doc, err := wire.Encode(kind.GroupVersionKind, obj, m)
				if err != nil {
					t.Fatal(err)
				}
				got, warnings, err := wire.Decode(m, doc, api.Served{Kind: kind}, wire.Strict)
				if err != nil || len(warnings) > 0 {
					t.Fatalf("%s: %v %v", m.ContentType(), err, warnings)
				}
				if !equality.Semantic.DeepEqual(got, obj) {
					t.Errorf("%s: read back\n%+v\nof\n%+v", m.ContentType(), got, obj)
				}
			}
			stored, err := wire.EncodeStorage(kind, obj.DeepCopyObject().(api.Object))
			if err != nil {
				t.Fatal(err)
			}
			got, err := wire.DecodeStorage(kind, stored, 77)
			if err != nil {
				t.Fatal(err)
			}
			obj.SetResourceVersion("77")
			if !equality.Semantic.DeepEqual(got, obj) {
				t.Errorf("stored and read back\n%+v\nof\n%+v", got, obj)
			}
		})
	}
}

func TestEveryShapeConvertsBack(t *testing.T) {
	for _, kind := range All() {
		for i := range kind.Shapes {
			shape := &kind.Shapes[i]
			t.Run(shape.GroupVersionKind.String(), func(t *testing.T) {
				for range 20 {
					seed := rand.Int64()
					obj := shape.New()
					filler(seed).Fill(obj)
					reflect.ValueOf(obj).Elem().FieldByName("TypeMeta").SetZero()
					if shape.Default != nil {
						shape.Default(obj)
					}
					there := shape.To(obj.DeepCopyObject().(api.Object))
					back := shape.From(there.DeepCopyObject().(api.Object))
					again := shape.To(back.DeepCopyObject().(api.Object))
					if !equality.Semantic.DeepEqual(there, again) {
						t.Fatalf("seed %d: lost on the way:\n%+v\n%+v", seed, there, again)
					}
				}
			})
		}
	}
}

// Default, Reset, Validate, Warn and Row must cope with whatever a client sends.
func TestEveryKindCopesWithAnything(t *testing.T) {
	for _, kind := range All() {
		t.Run(kind.Group+"."+kind.Kind, func(t *testing.T) {
			for n := range 9 {
				seed := rand.Int64()
				obj, old := fresh(t, kind, seed), fresh(t, kind, seed+1)
				if n%3 == 0 {
					obj, old = kind.New(), kind.New()
				}
				exercise(t, kind, obj, nil, "")
				exercise(t, kind, old, nil, "")
				was := old.DeepCopyObject()
				exercise(t, kind, obj, old, "")
				for _, sub := range kind.Subresources {
					if sub.Body == nil {
						exercise(t, kind, obj, old, sub.Name)
					} else if sub.Get != nil {
						body, err := sub.Get(obj)
						if err != nil {
							continue
						}
						if err := sub.Set(obj.DeepCopyObject().(api.Object), body); err != nil && n > 0 {
							t.Logf("%s: %v", sub.Name, err)
						}
					}
				}
				if !equality.Semantic.DeepEqual(was, runtime.Object(old)) {
					t.Fatalf("seed %d: the old object was changed", seed)
				}
			}
		})
	}
}

func exercise(t *testing.T, kind *api.Kind, obj, old api.Object, sub string) {
	t.Helper()
	if kind.Default != nil {
		kind.Default(obj)
		again := obj.DeepCopyObject().(api.Object)
		kind.Default(again)
		if !equality.Semantic.DeepEqual(again, obj) {
			t.Errorf("defaults are not stable:\n%+v\n%+v", obj, again)
		}
	}
	if kind.Reset != nil {
		kind.Reset(obj, old, sub)
	}
	var wrong field.ErrorList
	if kind.Validate != nil {
		wrong = kind.Validate(obj, old, sub)
	}
	if kind.Warn != nil && len(wrong) == 0 && sub == "" {
		kind.Warn(obj, old)
	}
	if kind.Row != nil {
		if row := kind.Row(obj); len(row) != len(kind.Columns) {
			t.Errorf("%d cells for %d columns", len(row), len(kind.Columns))
		}
	}
	if kind.Fields != nil {
		kind.Fields(obj)
	}
	for _, index := range kind.Indexes {
		index(obj)
	}
}

func TestKeysAreUpstreams(t *testing.T) {
	want := map[string]string{
		"ingresses.networking.k8s.io":            "/ingress/ns/x",
		"deployments.apps":                       "/deployments/ns/x",
		"clusterroles.rbac.authorization.k8s.io": "/clusterroles/x",
		"leases.coordination.k8s.io":             "/leases/ns/x",
		"endpointslices.discovery.k8s.io":        "/endpointslices/ns/x",
	}
	for _, k := range All() {
		if w, ok := want[k.GroupResource().String()]; ok && k.Key("ns", "x") != w {
			t.Errorf("%s is at %s, not %s", k.Resource, k.Key("ns", "x"), w)
		}
	}
}

func BenchmarkBody(b *testing.B) {
	obj := &appsv1.Deployment{}
	filler(1).Fill(obj)
	for _, m := range []wire.Media{wire.JSON, wire.Protobuf} {
		b.Run(m.ContentType(), func(b *testing.B) {
			for b.Loop() {
				body, err := wire.Body(obj, m)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(body)))
			}
		})
	}
}

// FuzzDecode sends anything to any kind: what can be read must pass through
// defaults, validation and the table without a crash.
func FuzzDecode(f *testing.F) {
	all := All()
	for i, kind := range all {
		obj := kind.New()
		filler(int64(i)).Fill(obj)
		body, err := wire.Body(obj, wire.JSON)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i, body)
		f.Add(i, []byte(`{"metadata":{"name":"a"},"spec":{},"status":{}}`))
	}
	f.Fuzz(func(t *testing.T, i int, body []byte) {
		kind := all[uint(i)%uint(len(all))]
		obj, _, err := wire.Decode(wire.JSON, body, api.Served{Kind: kind}, wire.Warn)
		if err != nil {
			return
		}
		old := obj.DeepCopyObject().(api.Object)
		exercise(t, kind, obj, nil, "")
		exercise(t, kind, obj, old, "")
	})
}
