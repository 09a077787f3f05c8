package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"sort"
	"strconv"
	"strings"

	"github.com/proa-dev/proa/internal/api"
)

// builder puts one document together.
type builder struct {
	version int // of OpenAPI: 2 or 3
	defs    map[string]Definition
	used    map[string]bool            // definitions the document needs
	options map[string][]parameter     // by name of the options definition
	shared  map[string]json.RawMessage // v2: parameters that are written once
}

// parameter is a query or path parameter.
type parameter struct {
	name, in, about, kind string
	required              bool
}

type object = map[string]any

// build makes the document of these kinds as JSON. h.mu is held.
func (h *Handler) build(key string, kinds []api.Served) ([]byte, error) {
	defs, err := h.definitions()
	if err != nil {
		return nil, err
	}
	b := builder{version: 3, defs: defs, used: map[string]bool{}, options: map[string][]parameter{}, shared: map[string]json.RawMessage{}}
	if key == "v2" {
		b.version = 2
	}
	var ops []operation
	for _, s := range kinds {
		self, list := h.names(s, defs)
		ops = append(ops, operations(s, self, list)...)
	}
	grouped, order := byPath(ops)
	paths := object{}
	for _, path := range order {
		item, err := b.path(path, grouped[path])
		if err != nil {
			return nil, err
		}
		paths[path] = item
	}
	for _, s := range kinds {
		self, list := h.names(s, defs)
		b.ref(self)
		if s.NewList != nil {
			b.ref(list)
		}
	}
	return json.Marshal(b.document(paths, h.version))
}

func (b *builder) document(paths object, version string) object {
	schemas := map[string]json.RawMessage{}
	for name := range b.used {
		schemas[name] = b.defs[name].in(b.version)
	}
	token := object{"BearerToken": object{"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey"}}
	doc := object{
		"info":  object{"title": "Kubernetes", "version": version},
		"paths": paths,
	}
	if b.version == 2 {
		doc["swagger"] = "2.0"
		doc["definitions"] = schemas
		doc["parameters"] = b.shared
		doc["securityDefinitions"] = token
		doc["security"] = []object{{"BearerToken": []string{}}}
	} else {
		doc["openapi"] = "3.0.0"
		doc["components"] = object{"schemas": schemas, "securitySchemes": token}
	}
	return doc
}

// names are the definitions of a kind and its list. For a kind that is not
// built in they are put into defs first.
func (h *Handler) names(s api.Served, defs map[string]Definition) (self, list string) {
	if s.Encoding == api.Protobuf {
		obj, lst := s.New, s.NewList
		if s.Shape != nil {
			obj, lst = s.Shape.New, s.Shape.NewList
		}
		if lst != nil {
			list = NameOf(lst())
		}
		return NameOf(obj()), list
	}
	gvk := s.GVK()
	parts := strings.Split(gvk.Group, ".")
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	self = strings.Join(append(parts, gvk.Version, gvk.Kind), ".")
	list = self + "List"
	if _, done := defs[self]; done {
		return self, list
	}
	def := h.extra[gvk].def
	if def.V3 == nil {
		empty, _ := markKind([]byte(`{"type":"object","x-kubernetes-preserve-unknown-fields":true}`), gvk)
		def = Definition{V3: empty, V2: empty}
	}
	defs[self] = def
	lists := Definition{}
	fields := selectable(def.V3)
	lists.V3, _ = markKind(listSchema(self, 3, fields), gvk.GroupVersion().WithKind(gvk.Kind+"List"))
	lists.V2, _ = markKind(listSchema(self, 2, fields), gvk.GroupVersion().WithKind(gvk.Kind+"List"))
	defs[list] = lists
	return self, list
}

// SelectableFields is the extension of a schema that says which fields its objects
// can be selected by (KEP-4358).
const SelectableFields = "x-kubernetes-selectable-fields"

// selectable is that extension of a schema, nil if it has none.
func selectable(schema []byte) json.RawMessage {
	if !bytes.Contains(schema, []byte(SelectableFields)) {
		return nil
	}
	var of map[string]json.RawMessage
	if json.Unmarshal(schema, &of) != nil {
		return nil
	}
	return of[SelectableFields]
}

func listSchema(of string, version int, fields json.RawMessage) []byte {
	ref := func(name string) object { return object{"$ref": refPrefix(version) + name} }
	kind := of[strings.LastIndexByte(of, '.')+1:]
	list := object{
		"description": kind + "List is a list of " + kind,
		"type":        "object",
		"required":    []string{"items"},
		"properties": object{
			"apiVersion": object{"type": "string", "description": "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"},
			"kind":       object{"type": "string", "description": "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"},
			"metadata":   ref(meta + "ListMeta"),
			"items":      object{"type": "array", "description": "List of " + kind + ".", "items": ref(of)},
		},
	}
	if fields != nil {
		list[SelectableFields] = fields
	}
	text, _ := json.Marshal(list)
	return text
}

// path is a path item with its operations.
func (b *builder) path(path string, ops []operation) (object, error) {
	item := object{}
	params := []any{}
	for _, in := range []string{"name", "namespace", "path"} {
		if !strings.Contains(path, "{"+in+"}") {
			continue
		}
		about := map[string]string{
			"name":      "name of the " + ops[0].gvk.Kind,
			"namespace": "object name and auth scope, such as for teams and projects",
			"path":      "path to the resource",
		}[in]
		params = append(params, b.parameter(parameter{name: in, in: "path", about: about, kind: "string", required: true}))
	}
	if ops[0].action != "connect" {
		params = append(params, b.parameter(parameter{name: "pretty", in: "query", kind: "string",
			about: "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget)."}))
	}
	for _, op := range ops {
		made, err := b.operation(op)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", op.method, path, err)
		}
		item[op.method] = made
	}
	item["parameters"] = params
	return item, nil
}

func (b *builder) operation(op operation) (object, error) {
	query, err := b.query(op.options)
	if err != nil {
		return nil, err
	}
	params := []any{}
	if op.body != "" && b.version == 2 {
		body := object{"in": "body", "name": "body", "schema": b.ref(op.body)}
		if !op.bodyOptional {
			body["required"] = true
		}
		params = append(params, body)
	}
	for _, p := range query {
		if op.action != "patch" && p.name == "force" {
			continue
		}
		if op.action == "deletecollection" && (p.name == "watch" || p.name == "allowWatchBookmarks") {
			continue
		}
		params = append(params, b.parameter(p))
	}
	out := object{
		"operationId":                     op.id,
		"description":                     op.about,
		"tags":                            []string{op.tag},
		"x-kubernetes-action":             op.action,
		"x-kubernetes-group-version-kind": object{"group": op.gvk.Group, "kind": op.gvk.Kind, "version": op.gvk.Version},
	}
	if len(params) > 0 {
		out["parameters"] = params
	}
	bodyTypes := op.bodyTypes
	if bodyTypes == nil {
		bodyTypes = []string{"*/*"}
	}
	if b.version == 2 {
		out["schemes"] = []string{"https"}
		out["consumes"] = bodyTypes
		out["produces"] = op.produces()
	} else if op.body != "" {
		content := object{}
		for _, media := range bodyTypes {
			content[media] = object{"schema": b.ref(op.body)}
		}
		body := object{"content": content}
		if !op.bodyOptional {
			body["required"] = true
		}
		out["requestBody"] = body
	}
	answers := object{"401": object{"description": "Unauthorized"}}
	for _, code := range op.codes {
		answers[strconv.Itoa(code)] = b.answer(op, code)
	}
	out["responses"] = answers
	return out, nil
}

func (b *builder) answer(op operation, code int) object {
	var schema any = object{"type": "string"}
	if op.answer != "" {
		schema = b.ref(op.answer)
	}
	out := object{"description": http.StatusText(code)}
	if b.version == 2 {
		out["schema"] = schema
		return out
	}
	content := object{}
	for _, media := range op.produces() {
		content[media] = object{"schema": schema}
	}
	out["content"] = content
	return out
}

func (op *operation) produces() []string {
	switch {
	case op.action == "connect":
		return []string{"*/*"}
	case op.answer == "":
		return []string{"text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}
	}
	types := []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}
	if op.streams {
		types = append(types, "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
	}
	return types
}

func (b *builder) ref(name string) object {
	reach(b.used, b.defs, name, b.version)
	return object{"$ref": refPrefix(b.version) + name}
}

func (b *builder) parameter(p parameter) object {
	out := object{"name": p.name, "in": p.in}
	if p.about != "" {
		out["description"] = p.about
	}
	if p.required {
		out["required"] = true
	}
	if b.version == 3 {
		out["schema"] = object{"type": p.kind, "uniqueItems": true}
		return out
	}
	out["type"], out["uniqueItems"] = p.kind, true
	if p.name == "name" { // its description names the kind: not worth sharing
		return out
	}
	sum := fnv.New32a()
	fmt.Fprint(sum, p.in, p.about, p.kind)
	key := fmt.Sprintf("%s-%08x", p.name, sum.Sum32())
	if b.shared[key] == nil {
		b.shared[key], _ = json.Marshal(out)
	}
	return object{"$ref": "#/parameters/" + key}
}

// query reads the parameters out of the schema of an options type. What is no
// plain value cannot be a parameter, and two belong to features that Proa does not have.
func (b *builder) query(options string) ([]parameter, error) {
	if options == "" {
		return nil, nil
	}
	if got, done := b.options[options]; done {
		return got, nil
	}
	seen := map[string]parameter{}
	for _, name := range strings.Split(options, "+") {
		full := meta + name
		if _, ok := b.defs[full]; !ok {
			full = "io.k8s.api.core.v1." + name
		}
		var schema struct {
			Properties map[string]struct {
				Description string `json:"description"`
				Type        string `json:"type"`
			} `json:"properties"`
		}
		def, ok := b.defs[full]
		if !ok {
			return nil, fmt.Errorf("no definition of %s, whose fields are the query parameters", name)
		}
		if err := json.NewDecoder(bytes.NewReader(def.V3)).Decode(&schema); err != nil {
			return nil, fmt.Errorf("%s: %w", full, err)
		}
		for field, p := range schema.Properties {
			switch field {
			case "kind", "apiVersion", "shardSelector", "ignoreStoreReadErrorWithClusterBreakingPotential":
				continue
			}
			switch p.Type {
			case "array":
				p.Type = "string"
			case "", "object":
				continue
			}
			seen[field] = parameter{name: field, in: "query", about: p.Description, kind: p.Type}
		}
	}
	out := make([]parameter, 0, len(seen))
	for _, p := range seen {
		out = append(out, p)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].name < out[j].name })
	b.options[options] = out
	return out, nil
}
