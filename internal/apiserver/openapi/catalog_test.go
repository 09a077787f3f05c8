package openapi_test

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
)

type swagger struct {
	Paths map[string]map[string]json.RawMessage
	Defs  map[string]json.RawMessage `json:"definitions"`
}

// TestEveryBuiltInKind builds the whole document and looks for what is missing
// in it: definitions that are referred to, kinds without a schema, ids that are
// there twice.
func TestEveryBuiltInKind(t *testing.T) {
	catalog := kinds.Catalog()
	h := openapi.New(catalog, "v1.36.3")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/openapi/v2", nil))
	var doc swagger
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if file := os.Getenv("OPENAPI_OUT"); file != "" {
		if err := os.WriteFile(file, w.Body.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range strings.Split(w.Body.String(), `"$ref":"#/definitions/`)[1:] {
		if name, _, _ := strings.Cut(part, `"`); doc.Defs[name] == nil {
			t.Fatalf("%q is referred to and not there", name)
		}
	}
	ids := map[string]string{}
	for path, item := range doc.Paths {
		for method, text := range item {
			if method == "parameters" {
				continue
			}
			var op struct{ OperationID string }
			if err := json.Unmarshal(text, &op); err != nil {
				t.Fatal(err)
			}
			if other := ids[op.OperationID]; other != "" {
				t.Errorf("%s of %s %s is also that of %s", op.OperationID, method, path, other)
			}
			ids[op.OperationID] = method + " " + path
		}
	}
	types := &openapi.Types{}
	for _, k := range catalog.All() {
		objs := []api.Object{k.New()}
		for _, s := range k.Shapes {
			objs = append(objs, s.New())
		}
		for _, obj := range objs {
			if _, err := types.Type(openapi.NameOf(obj)); err != nil {
				t.Errorf("%T: %v", obj, err)
			}
		}
	}
	for path := range doc.Paths {
		if strings.HasPrefix(path, "/apis/") || strings.HasPrefix(path, "/api/") {
			continue
		}
		t.Errorf("odd path %s", path)
	}
}
