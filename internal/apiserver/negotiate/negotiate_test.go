package negotiate

import (
	"net/http"
	"strings"
	"testing"

	"github.com/proa-dev/proa/internal/api/wire"
)

func TestAccept(t *testing.T) {
	const table, partial = "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
	for _, c := range []struct {
		header     string
		custom     bool
		transforms bool
		want       Want
		refused    string
	}{
		{header: "", want: Want{}},
		{header: "*/*", want: Want{}},
		{header: "application/json", want: Want{}},
		{header: "application/yaml", want: Want{Media: wire.YAML}},
		{header: "application/vnd.kubernetes.protobuf", want: Want{Media: wire.Protobuf}},
		{header: "application/vnd.kubernetes.protobuf, */*", custom: true, want: Want{}},
		{header: "application/vnd.kubernetes.protobuf", custom: true, refused: "only the following media types are accepted: application/json, application/yaml"},
		{header: "application/json;q=0.5, application/yaml", want: Want{Media: wire.YAML}},
		{header: "application/json, */*;q=0.1", want: Want{}},
		{header: "application/json;pretty=1", want: Want{Pretty: true}},
		{header: table + ",application/json", transforms: true, want: Want{Form: Table, Meta: "v1"}},
		{header: strings.Replace(table, "v=v1", "v=v1beta1", 1), transforms: true, want: Want{Form: Table, Meta: "v1beta1"}},
		{header: table + ",application/json", want: Want{}},
		{header: table, refused: "only the following media types are accepted"},
		{header: strings.Replace(table, "json", "vnd.kubernetes.protobuf", 1) + ", " + table, transforms: true, want: Want{Form: Table, Meta: "v1"}},
		{header: partial, transforms: true, want: Want{Form: Metadata, Meta: "v1"}},
		{header: "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", custom: true, transforms: true, want: Want{Form: Metadata, Meta: "v1", Media: wire.Protobuf}},
		{header: "application/json;stream=watch", want: Want{Stream: true}},
		{header: "application/json;stream=other", refused: "only the following media types are accepted"},
		{header: "text/html", refused: "application/json, application/yaml, application/vnd.kubernetes.protobuf"},
	} {
		r, _ := http.NewRequest("GET", "http://x/", nil)
		r.Header.Set("Accept", c.header)
		got, err := Accept(r, c.custom, c.transforms)
		switch {
		case c.refused != "":
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%q: got %+v, %v, want %q", c.header, got, err, c.refused)
			}
		case err != nil || got != c.want:
			t.Errorf("%q: got %+v, %v, want %+v", c.header, got, err, c.want)
		}
	}
}

func TestPretty(t *testing.T) {
	for url, agents := range map[string]map[string]bool{
		"http://x/":              {"curl/8": true, "kubectl/1": false, "Mozilla/5.0 x": true},
		"http://x/?pretty=true":  {"kubectl/1": true},
		"http://x/?pretty=false": {"curl/8": false},
	} {
		for agent, want := range agents {
			r, _ := http.NewRequest("GET", url, nil)
			r.Header.Set("User-Agent", agent)
			if got, err := Accept(r, false, false); err != nil || got.Pretty != want {
				t.Errorf("%s by %s: %+v, %v", url, agent, got, err)
			}
		}
	}
}

func TestContentType(t *testing.T) {
	for header, want := range map[string]wire.Media{
		"": wire.JSON, "application/json": wire.JSON, "application/json; charset=utf-8": wire.JSON,
		"application/yaml": wire.YAML, "application/vnd.kubernetes.protobuf": wire.Protobuf,
	} {
		r, _ := http.NewRequest("POST", "http://x/", nil)
		r.Header.Set("Content-Type", header)
		if got, err := ContentType(r, false); err != nil || got != want {
			t.Errorf("%q: %v, %v", header, got, err)
		}
	}
	r, _ := http.NewRequest("POST", "http://x/", nil)
	r.Header.Set("Content-Type", "application/vnd.kubernetes.protobuf")
	if _, err := ContentType(r, true); err == nil {
		t.Error("a custom resource was taken as protobuf")
	}
}
