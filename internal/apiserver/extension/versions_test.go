package extension_test

import (
	"fmt"
	"strings"
	"testing"
)

// twoFaces is served in two versions that nobody converts: each sees the fields
// that it knows.
const twoFaces = `
metadata: {name: faces.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {plural: faces, kind: Face}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    selectableFields: [{jsonPath: .color}, {jsonPath: .owners}, {jsonPath: .spec.on}]
    schema: {openAPIV3Schema: {type: object, properties: {
      color: {type: string, default: red}, size: {type: integer}, owners: {type: string}, spec: {type: object, properties: {"on": {type: boolean}}}, status: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}
  - name: v2
    served: true
    storage: false
    selectableFields: [{jsonPath: .size}, {jsonPath: .extra}]
    schema: {openAPIV3Schema: {type: object, properties: {
      color: {type: string}, size: {type: integer}, extra: {type: string, default: more}, status: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}
`

func TestVersionsThatNobodyConverts(t *testing.T) {
	s := start(t)
	s.define(twoFaces)
	const v1s, v2s = "/apis/example.com/v1/faces", "/apis/example.com/v2/faces"
	s.ok("POST", v1s, `{apiVersion: example.com/v1, kind: Face, metadata: {name: a}, size: 5, owners: me, spec: {"on": true}, status: {x: here}}`)
	out := s.ok("POST", v2s, `{apiVersion: example.com/v2, kind: Face, metadata: {name: b}, size: 6, color: blue, status: {x: here}}`)
	if out["extra"] != nil || at(out, "status", "x") != "here" { // its default is not in what is stored; v2 has no subresource status
		t.Errorf("created as %v", out)
	}
	if out := s.ok("GET", v2s+"/a", ""); out["size"] != 5.0 || out["owners"] != nil || out["spec"] != nil || out["color"] != "red" || out["status"] != nil {
		t.Errorf("in v2: %v", out)
	}
	for path, want := range map[string]string{
		v1s + "?fieldSelector=color%3Dred":                                                              "a",
		v1s + "?fieldSelector=color!%3Dred":                                                             "b",
		v1s + "?fieldSelector=owners%3Dme":                                                              "a",
		v1s + "?fieldSelector=owners%3D":                                                                "b",
		v1s + "?fieldSelector=" + "spec.on%3Dtrue":                                                      "a",
		v2s + "?fieldSelector=size%3D6":                                                                 "b",
		v2s + "?fieldSelector=extra%3D":                                                                 "a b",
		v1s + "?fieldSelector=color%3Dred,owners%3Dme":                                                  "a",
		v1s + "?fieldSelector=color%3Dred,metadata.name%3Db":                                            "",
		v1s + "?fieldSelector=metadata.name%3Db&resourceVersion=0":                                      "b",
		v1s + "?fieldSelector=color%3Dblue&limit=1":                                                     "b",
		v2s + "?fieldSelector=size%3D6&resourceVersion=0&limit=5":                                       "b",
		v1s + "?labelSelector=a%3Db":                                                                    "",
		v1s + "?fieldSelector=color%3Dred&resourceVersionMatch=Exact&resourceVersion=" + s.version(v1s): "a",
	} {
		if got := s.names(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	for path, label := range map[string]string{v1s: "size", v2s: "color", v1s + "/": "metadata.namespace"} {
		s.fails(400, "field label not supported: "+label, "GET", strings.TrimSuffix(path, "/")+"?fieldSelector="+label+"%3Dx", "")
	}
	w := s.watch(v1s + "?watch=true&fieldSelector=color%3Dblue")
	w.expect("ADDED b")
	s.ok("PATCH", v2s+"/a", `{"color":"blue"}`, merge)
	w.expect("ADDED a")
	s.ok("PATCH", v2s+"/b", `{"color":"green"}`, merge)
	w.expect("DELETED b")
	s.fails(404, "", "GET", v2s+"/a/status", "")
	s.ok("GET", v1s+"/a/status", "")
	list := s.ok("GET", "/apis/example.com/v2", "")
	if got := len(list["resources"].([]any)); got != 1 {
		t.Errorf("v2 has %d resources: %v", got, list)
	}
}

// version of a list.
func (s *server) version(path string) string {
	s.t.Helper()
	return fmt.Sprint(at(s.ok("GET", path, ""), "metadata", "resourceVersion"))
}

func TestSelectableFieldsArePublished(t *testing.T) {
	s := start(t)
	s.define(twoFaces)
	for version, want := range map[string]string{"v1": "[map[fieldPath:color] map[fieldPath:owners] map[fieldPath:spec.on]]", "v2": "[map[fieldPath:size] map[fieldPath:extra]]"} {
		three := s.ok("GET", "/openapi/v3/apis/example.com/"+version, "")
		two := s.ok("GET", "/openapi/v2", "")
		for _, name := range []string{"Face", "FaceList"} {
			name = "com.example." + version + "." + name
			for _, schema := range []any{at(three, "components", "schemas", name), at(two, "definitions", name)} {
				if got := fmt.Sprint(at(schema, "x-kubernetes-selectable-fields")); got != want {
					t.Errorf("%s: %s, want %s", name, got, want)
				}
			}
		}
	}
}

// A custom resource has to say what it is.
func TestBodiesWithoutAKind(t *testing.T) {
	s := start(t)
	s.define(twoFaces)
	const path = "/apis/example.com/v1/faces"
	s.fails(400, "Object 'Kind' is missing", "POST", path, `{metadata: {name: a}}`)
	s.fails(400, "does not match the expected API version", "POST", path, `{kind: Face, metadata: {name: a}}`)
	s.fails(400, "does not match", "POST", path, `{kind: Face, apiVersion: example.com/v2, metadata: {name: a}}`)
}
