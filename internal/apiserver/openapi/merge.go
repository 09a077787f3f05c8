package openapi

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// swagger is a v2 document as far as merging needs to read it. What it does not
// name is lost, but for the document that others are merged into.
type swagger struct {
	Swagger     string                     `json:"swagger,omitempty"`
	Info        json.RawMessage            `json:"info,omitempty"`
	Paths       map[string]json.RawMessage `json:"paths"`
	Definitions map[string]json.RawMessage `json:"definitions"`
	Parameters  map[string]json.RawMessage `json:"parameters,omitempty"`
}

const (
	definitionRef = `"#/definitions/`
	parameterRef  = `"#/parameters/`
)

// partOf a document that is about a group and version: its paths and what they
// and its kinds need.
func partOf(text []byte, gv schema.GroupVersion) (*swagger, error) {
	var whole swagger
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, err
	}
	part := &swagger{Swagger: "2.0", Info: whole.Info, Paths: map[string]json.RawMessage{}, Definitions: map[string]json.RawMessage{}, Parameters: map[string]json.RawMessage{}}
	var need func(text []byte)
	need = func(text []byte) {
		for name := range refs(text, definitionRef) {
			if part.Definitions[name] == nil && whole.Definitions[name] != nil {
				part.Definitions[name] = whole.Definitions[name]
				need(whole.Definitions[name])
			}
		}
		for name := range refs(text, parameterRef) {
			if part.Parameters[name] == nil && whole.Parameters[name] != nil {
				part.Parameters[name] = whole.Parameters[name]
				need(whole.Parameters[name])
			}
		}
	}
	root := "/" + groupPath(gv) + "/"
	for path, item := range whole.Paths {
		if strings.HasPrefix(path+"/", root) {
			part.Paths[path] = item
			need(item)
		}
	}
	return part, nil
}

// refs are the names behind a prefix in a text.
func refs(text []byte, prefix string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for {
			i := bytes.Index(text, []byte(prefix))
			if i < 0 {
				return
			}
			text = text[i+len(prefix):]
			end := bytes.IndexByte(text, '"')
			if end < 0 || !yield(string(text[:end])) {
				return
			}
		}
	}
}

// merged is our v2 document with those of others in it. Paths that are there stay
// as they are. Of two definitions of a name that differ, the other's gets another
// name.
func merged(ours []byte, parts []*swagger) ([]byte, error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(ours, &doc); err != nil {
		return nil, err
	}
	var whole swagger
	if err := json.Unmarshal(ours, &whole); err != nil {
		return nil, err
	}
	if whole.Parameters == nil {
		whole.Parameters = map[string]json.RawMessage{}
	}
	for _, p := range parts {
		p = renamed(p, &whole)
		add(whole.Paths, p.Paths)
		add(whole.Definitions, p.Definitions)
		add(whole.Parameters, p.Parameters)
	}
	for name, part := range map[string]any{"paths": whole.Paths, "definitions": whole.Definitions, "parameters": whole.Parameters} {
		text, err := json.Marshal(part)
		if err != nil {
			return nil, err
		}
		doc[name] = text
	}
	return json.Marshal(doc)
}

func add(to, from map[string]json.RawMessage) {
	for name, text := range from {
		if to[name] == nil {
			to[name] = text
		}
	}
}

// renamed is a part whose definitions and parameters do not contradict those of
// a whole.
func renamed(p, whole *swagger) *swagger {
	swap := map[string]string{} // references, quotes and all
	choose := func(prefix string, theirs, ours map[string]json.RawMessage) {
		for _, name := range slices.Sorted(maps.Keys(theirs)) {
			if ours[name] == nil || same(ours[name], theirs[name]) {
				continue
			}
			for n := 2; ; n++ {
				other := name + "_v" + strconv.Itoa(n)
				if had := ours[other]; theirs[other] == nil && (had == nil || same(had, theirs[name])) {
					swap[prefix+name+`"`] = prefix + other + `"`
					break
				}
			}
		}
	}
	choose(definitionRef, p.Definitions, whole.Definitions)
	choose(parameterRef, p.Parameters, whole.Parameters)
	if len(swap) == 0 {
		return p
	}
	pairs := make([]string, 0, 2*len(swap))
	for from, to := range swap {
		pairs = append(pairs, from, to)
	}
	replace := strings.NewReplacer(pairs...)
	moved := func(prefix string, of map[string]json.RawMessage) map[string]json.RawMessage {
		out := make(map[string]json.RawMessage, len(of))
		for name, text := range of {
			if to, ok := swap[prefix+name+`"`]; ok {
				name = strings.TrimSuffix(strings.TrimPrefix(to, prefix), `"`)
			}
			out[name] = json.RawMessage(replace.Replace(string(text)))
		}
		return out
	}
	return &swagger{Paths: moved("", p.Paths), Definitions: moved(definitionRef, p.Definitions), Parameters: moved(parameterRef, p.Parameters)}
}

// same says that two schemas say the same, whatever kinds they are said to be of.
func same(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y map[string]any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	delete(x, "x-kubernetes-group-version-kind")
	delete(y, "x-kubernetes-group-version-kind")
	return reflect.DeepEqual(x, y)
}
