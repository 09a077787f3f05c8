package openapi

import (
	"encoding/json"
	"fmt"
	"sync"

	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// Modeled is what the types of k8s.io/api have: their name as a definition.
type Modeled interface{ OpenAPIModelName() string }

// NameOf is the definition name of a Go value of k8s.io/api, "" when it has none.
func NameOf(v any) string {
	if m, ok := v.(Modeled); ok {
		return m.OpenAPIModelName()
	}
	return ""
}

// Types gives the built-in types as structured-merge-diff wants them. A type is
// read with all it needs when it is first asked for, and then kept; types share
// what they have in common. The zero value is ready. Safe for concurrent use.
type Types struct {
	mu    sync.Mutex
	read  map[string]readType
	whole map[string]*typed.ParseableType
}

// readType is one line of types.txt, with the names of the types it refers to.
type readType struct {
	atom schema.Atom
	refs []string
}

// Type finds a type by its definition name, io.k8s.api.core.v1.Pod, and keeps it.
func (t *Types) Type(name string) (*typed.ParseableType, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.whole[name]; p != nil {
		return p, nil
	}
	if t.read == nil {
		t.read, t.whole = map[string]readType{}, map[string]*typed.ParseableType{}
	}
	p, err := whole(name, t.read)
	if err == nil {
		t.whole[name] = p
	}
	return p, err
}

// ReadType is Type for a single use: nothing is kept.
func ReadType(name string) (*typed.ParseableType, error) {
	return whole(name, map[string]readType{})
}

// whole is a type with all that it refers to, and with what the library itself
// refers to for untyped data. What is read goes into read.
func whole(name string, read map[string]readType) (*typed.ParseableType, error) {
	parser := &typed.Parser{}
	seen := map[string]bool{}
	want := []string{name, "__untyped_atomic_", "__untyped_deduced_"}
	for len(want) > 0 {
		next := want[len(want)-1]
		want = want[:len(want)-1]
		if seen[next] {
			continue
		}
		seen[next] = true
		got, ok := read[next]
		if !ok {
			var err error
			if got, err = readLine(next); err != nil {
				return nil, err
			}
			read[next] = got
		}
		parser.Schema.Types = append(parser.Schema.Types, schema.TypeDef{Name: next, Atom: got.atom})
		want = append(want, got.refs...)
	}
	p := parser.Type(name)
	return &p, nil
}

func readLine(name string) (readType, error) {
	line := typeLine(name)
	if line == "" {
		return readType{}, fmt.Errorf("no type %q among the built-in ones", name)
	}
	var a typeAtom
	if err := json.Unmarshal([]byte(line), &a); err != nil {
		return readType{}, fmt.Errorf("type %q: %w", name, err)
	}
	var out readType
	out.atom = out.toAtom(&a)
	return out, nil
}

// The JSON of types.txt; tools/openapi writes it.
type (
	typeRef struct {
		Name   string    `json:"n"`
		Inline *typeAtom `json:"i"`
		Rel    string    `json:"r"`
	}
	typeAtom struct {
		Scalar string    `json:"s"`
		List   *typeList `json:"l"`
		Map    *typeMap  `json:"m"`
	}
	typeList struct {
		Of   typeRef  `json:"e"`
		Rel  string   `json:"r"`
		Keys []string `json:"k"`
	}
	typeMap struct {
		Fields []typeField `json:"f"`
		Of     *typeRef    `json:"e"`
		Rel    string      `json:"r"`
	}
	typeField struct {
		Field   string `json:"f"`
		Default any    `json:"d"`
		typeRef
	}
)

func (r *readType) toAtom(a *typeAtom) schema.Atom {
	var out schema.Atom
	if a.Scalar != "" {
		s := schema.Scalar(a.Scalar)
		out.Scalar = &s
	}
	if a.List != nil {
		out.List = &schema.List{
			ElementType:         r.toRef(&a.List.Of),
			ElementRelationship: schema.ElementRelationship(a.List.Rel),
			Keys:                a.List.Keys,
		}
	}
	if a.Map != nil {
		out.Map = &schema.Map{ElementRelationship: schema.ElementRelationship(a.Map.Rel)}
		for i := range a.Map.Fields {
			f := &a.Map.Fields[i]
			out.Map.Fields = append(out.Map.Fields, schema.StructField{Name: f.Field, Default: f.Default, Type: r.toRef(&f.typeRef)})
		}
		if a.Map.Of != nil {
			out.Map.ElementType = r.toRef(a.Map.Of)
		}
	}
	return out
}

func (r *readType) toRef(t *typeRef) schema.TypeRef {
	var out schema.TypeRef
	if t.Name != "" {
		out.NamedType = &t.Name
		r.refs = append(r.refs, t.Name)
	} else if t.Inline != nil {
		out.Inlined = r.toAtom(t.Inline)
	}
	if t.Rel != "" {
		rel := schema.ElementRelationship(t.Rel)
		out.ElementRelationship = &rel
	}
	return out
}
