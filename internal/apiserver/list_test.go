package apiserver

import (
	"fmt"
	"strings"
	"testing"
)

func names(r reply) string {
	var all []string
	items, _ := r.at("items").([]any)
	for i := range items {
		n, _ := r.at("items", i, "metadata", "name").(string)
		all = append(all, n)
	}
	return strings.Join(all, " ")
}

func TestListSelectors(t *testing.T) {
	h := newHarness(t)
	for _, n := range []string{"a", "b", "c"} {
		h.ok("POST", cms, cm(n, n))
	}
	h.ok("POST", "/api/v1/namespaces", `{"metadata":{"name":"other"}}`)
	h.ok("POST", "/api/v1/namespaces/other/configmaps", cm("z", "z"))
	for _, c := range []struct{ path, want string }{
		{cms, "a b c"},
		{"/api/v1/configmaps", "a b c z"},
		{cms + "?labelSelector=app=b", "b"},
		{cms + "?labelSelector=app%20in%20(a,c)", "a c"},
		{cms + "?labelSelector=!app", ""},
		{cms + "?fieldSelector=metadata.name=c", "c"},
		{cms + "?fieldSelector=metadata.name!=c", "a b"},
		{"/api/v1/configmaps?fieldSelector=metadata.namespace=other", "z"},
		{"/api/v1/configmaps?fieldSelector=metadata.name=z", "z"},
		{cms + "?limit=2", "a b"},
	} {
		if got := names(h.ok("GET", c.path, "")); got != c.want {
			t.Errorf("%s: %q, want %q", c.path, got, c.want)
		}
	}
	r := h.ok("GET", cms, "")
	if r.at("kind") != "ConfigMapList" || r.at("apiVersion") != "v1" || r.at("metadata", "resourceVersion") == "" || r.at("items", 0, "kind") != nil {
		t.Errorf("list %s", r)
	}
	h.fails(400, "BadRequest", `"spec.foo" is not a known field selector: only "metadata.name", "metadata.namespace"`, "GET", cms+"?fieldSelector=spec.foo=x", "")
	h.fails(400, "BadRequest", `field label not supported: spec.foo`, "GET", podsPath+"?fieldSelector=spec.foo=x", "")
	h.fails(400, "BadRequest", `unable to parse requirement`, "GET", cms+"?labelSelector=a%20b%20c", "")
	h.fails(400, "BadRequest", `continue key is not valid`, "GET", cms+"?continue=xxx", "")
	h.fails(422, "Invalid", `resourceVersionMatch is forbidden unless resourceVersion is provided`, "GET", cms+"?resourceVersionMatch=Exact", "")
	h.fails(422, "Invalid", `sendInitialEvents is forbidden for list`, "GET", cms+"?sendInitialEvents=true", "")
	h.fails(504, "Timeout", "Too large resource version: 99999", "GET", cms+"?resourceVersion=99999", "")
	h.fails(400, "BadRequest", `invalid resource version: resourceVersion: Invalid value: "x"`, "GET", cms+"?resourceVersion=x", "")
}

func TestListInPages(t *testing.T) {
	h := newHarness(t)
	for i := range 10 {
		h.ok("POST", cms, cm(fmt.Sprintf("c%d", i), ""))
	}
	var got []string
	next, rv := "", ""
	for page := 0; ; page++ {
		r := h.ok("GET", cms+"?limit=3&continue="+next, "")
		got = append(got, names(r))
		if page == 0 {
			rv = r.at("metadata", "resourceVersion").(string)
			if r.at("metadata", "remainingItemCount") != 7.0 {
				t.Errorf("remaining %v", r.at("metadata", "remainingItemCount"))
			}
			// What comes after the first page changes; the list stays as it was.
			h.ok("DELETE", cms+"/c9", "")
			h.ok("POST", cms, cm("c4x", ""))
		} else if r.at("metadata", "resourceVersion") != rv {
			t.Errorf("page %d is of %v, not %v", page, r.at("metadata", "resourceVersion"), rv)
		}
		next, _ = r.at("metadata", "continue").(string)
		if next == "" {
			break
		}
	}
	if all := strings.Join(got, "|"); all != "c0 c1 c2|c3 c4 c5|c6 c7 c8|c9" {
		t.Errorf("pages %s", all)
	}
	if exact := names(h.ok("GET", cms+"?resourceVersionMatch=Exact&resourceVersion="+rv, "")); exact != "c0 c1 c2 c3 c4 c5 c6 c7 c8 c9" {
		t.Errorf("exact: %s", exact)
	}
	if now := names(h.ok("GET", cms+"?resourceVersionMatch=NotOlderThan&resourceVersion="+rv, "")); now != "c0 c1 c2 c3 c4 c4x c5 c6 c7 c8" {
		t.Errorf("not older: %s", now)
	}
}

func TestListForms(t *testing.T) {
	h := newHarness(t)
	h.ok("POST", podsPath, somePod("p"))
	table := "Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	r := h.ok("GET", podsPath, "", table)
	if r.at("kind") != "Table" || r.at("apiVersion") != "meta.k8s.io/v1" || r.at("columnDefinitions", 0, "name") != "Name" ||
		r.at("rows", 0, "cells", 0) != "p" || r.at("rows", 0, "object", "kind") != "PartialObjectMetadata" || r.at("rows", 0, "object", "metadata", "name") != "p" {
		t.Errorf("table %s", r)
	}
	if r := h.ok("GET", podsPath+"/p?includeObject=None", "", table); r.at("rows", 0, "object") != nil || r.at("rows", 0, "cells", 0) != "p" {
		t.Errorf("table %s", r)
	}
	if r := h.ok("GET", podsPath+"?includeObject=Object", "", table); r.at("rows", 0, "object", "spec") == nil || r.at("rows", 0, "object", "kind") != "Pod" {
		t.Errorf("table %s", r)
	}
	meta := "Accept: application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
	if r := h.ok("GET", podsPath, "", meta); r.at("kind") != "PartialObjectMetadataList" || r.at("items", 0, "kind") != "PartialObjectMetadata" || r.at("items", 0, "metadata", "name") != "p" || r.at("items", 0, "spec") != nil {
		t.Errorf("metadata %s", r)
	}
	one := "Accept: application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
	if r := h.ok("GET", podsPath+"/p", "", one); r.at("kind") != "PartialObjectMetadata" || r.at("spec") != nil {
		t.Errorf("metadata %s", r)
	}
	if r := h.ok("GET", podsPath+"/p?pretty=true", ""); !strings.HasPrefix(string(r.body), "{\n  \"kind\": \"Pod\"") {
		t.Errorf("pretty %.50s", r.body)
	}
	h.fails(406, "NotAcceptable", "only the following media types are accepted", "GET", podsPath, "", "Accept: application/json;as=Nonsense;v=v1;g=meta.k8s.io")
}

func TestOldShapes(t *testing.T) {
	h := newHarness(t)
	old := `{"apiVersion":"networking.k8s.io/v1beta1","kind":"Ingress","metadata":{"name":"i"},"spec":{"rules":[{"http":{"paths":[{"path":"/x","backend":{"serviceName":"s","servicePort":80}}]}}]}}`
	r := h.ok("POST", "/apis/networking.k8s.io/v1beta1/namespaces/default/ingresses", old)
	if !strings.Contains(r.header.Get("Warning"), "networking.k8s.io/v1beta1 Ingress is deprecated") {
		t.Errorf("warning %q", r.header.Get("Warning"))
	}
	if r.at("apiVersion") != "networking.k8s.io/v1beta1" || r.at("spec", "rules", 0, "http", "paths", 0, "backend", "serviceName") != "s" {
		t.Errorf("created %s", r)
	}
	v1 := h.ok("GET", "/apis/networking.k8s.io/v1/namespaces/default/ingresses/i", "")
	if v1.at("spec", "rules", 0, "http", "paths", 0, "backend", "service", "name") != "s" {
		t.Errorf("as v1: %s", v1)
	}
	p := h.ok("PATCH", "/apis/networking.k8s.io/v1beta1/namespaces/default/ingresses/i", `{"spec":{"rules":[{"http":{"paths":[{"path":"/y","backend":{"serviceName":"t","servicePort":81}}]}}]}}`, "Content-Type: application/strategic-merge-patch+json")
	if p.at("spec", "rules", 0, "http", "paths", 0, "backend", "serviceName") != "t" {
		t.Errorf("patched %s", p)
	}
	if l := h.ok("GET", "/apis/extensions/v1beta1/ingresses", ""); l.at("apiVersion") != "extensions/v1beta1" || l.at("items", 0, "spec", "rules", 0, "http", "paths", 0, "backend", "serviceName") != "t" {
		t.Errorf("list %s", l)
	}
}
