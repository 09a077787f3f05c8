package apiserver

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"
)

const slowWatch = "&timeoutSeconds=15"

func TestWatch(t *testing.T) {
	h := newHarness(t)
	h.ok("POST", cms, cm("a", "1"))
	next := h.watch(cms + "?watch=1" + slowWatch)
	want := func(next func() (string, map[string]any), typ, n string) map[string]any {
		t.Helper()
		got, obj := next()
		if got != typ || name(obj) != n {
			t.Fatalf("got %s %s, want %s %s (%v)", got, name(obj), typ, n, obj)
		}
		return obj
	}
	obj := want(next, "ADDED", "a")
	if obj["kind"] != "ConfigMap" {
		t.Errorf("no kind: %v", obj)
	}
	rv := h.ok("GET", cms, "").at("metadata", "resourceVersion").(string)
	h.ok("POST", cms, cm("b", "1"))
	want(next, "ADDED", "b")
	h.ok("PUT", cms+"/b", cm("b", "2"))
	want(next, "MODIFIED", "b")
	h.ok("DELETE", cms+"/b", "")
	gone := want(next, "DELETED", "b")

	after := h.watch(cms + "?watch=true&resourceVersion=" + rv + slowWatch)
	for _, typ := range []string{"ADDED", "MODIFIED", "DELETED"} {
		obj = want(after, typ, "b")
	}
	if obj["metadata"].(map[string]any)["resourceVersion"] != gone["metadata"].(map[string]any)["resourceVersion"] {
		t.Error("two watches see different revisions of a deletion")
	}
	old := h.watch("/api/v1/watch/namespaces/default/configmaps/a?timeoutSeconds=15")
	want(old, "ADDED", "a")
}

func TestWatchSelector(t *testing.T) {
	h := newHarness(t)
	h.ok("POST", cms, cm("a", "1"))
	next := h.watch(cms + "?watch=1&labelSelector=in%3Dyes" + slowWatch)
	label := func(v string) reply {
		return h.ok("PATCH", cms+"/a", `{"metadata":{"labels":{"in":`+v+`}}}`, "Content-Type: application/merge-patch+json")
	}
	label(`"yes"`)
	if typ, _ := next(); typ != "ADDED" {
		t.Errorf("entering: %s", typ)
	}
	h.ok("PATCH", cms+"/a", `{"data":{"z":"1"}}`, "Content-Type: application/merge-patch+json")
	if typ, _ := next(); typ != "MODIFIED" {
		t.Errorf("staying: %s", typ)
	}
	left := label(`"no"`)
	typ, obj := next()
	m := obj["metadata"].(map[string]any)
	if typ != "DELETED" || m["resourceVersion"] != left.at("metadata", "resourceVersion") || m["labels"].(map[string]any)["in"] != "yes" {
		t.Errorf("leaving: %s %v", typ, m)
	}
}

func TestWatchList(t *testing.T) {
	h := newHarness(t)
	h.ok("POST", cms, cm("a", "1"))
	next := h.watch(cms + "?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan" + slowWatch)
	if typ, obj := next(); typ != "ADDED" || name(obj) != "a" {
		t.Errorf("%s %v", typ, obj)
	}
	typ, obj := next()
	m, _ := obj["metadata"].(map[string]any)
	a, _ := m["annotations"].(map[string]any)
	if typ != "BOOKMARK" || a["k8s.io/initial-events-end"] != "true" || m["resourceVersion"] == "" || obj["kind"] != "ConfigMap" {
		t.Errorf("%s %v", typ, obj)
	}
	h.fails(422, "Invalid", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan", "GET", cms+"?watch=1&sendInitialEvents=true", "")
}

func TestWatchTooOld(t *testing.T) {
	h := newHarness(t)
	h.server.cfg.Cache.Of(h.server.cfg.Catalog.All()[0])
	next := h.watch(cms + "?watch=1&resourceVersion=1&timeoutSeconds=1")
	if typ, obj := next(); typ != "EOF" && (typ != "ERROR" || obj["code"] != 410.0) {
		t.Errorf("%s %v", typ, obj)
	}
}

func TestWatchEnds(t *testing.T) {
	h := newHarness(t)
	next := h.watch(cms + "?watch=1&timeoutSeconds=1&allowWatchBookmarks=true")
	if typ, _ := next(); typ != "BOOKMARK" {
		t.Errorf("no bookmark at the end: %s", typ)
	}
	if typ, _ := next(); typ != "EOF" {
		t.Errorf("it goes on: %s", typ)
	}
	stopped := h.watch(cms + "?watch=1" + slowWatch)
	h.server.close()
	if typ, _ := stopped(); typ != "EOF" {
		t.Errorf("the server stops, but the watch goes on: %s", typ)
	}
}

func TestWatchForms(t *testing.T) {
	h := newHarness(t)
	h.ok("POST", podsPath, somePod("p"))
	next := h.watch(podsPath+"?watch=1"+slowWatch, "Accept: application/json;as=Table;v=v1;g=meta.k8s.io")
	typ, obj := next()
	if typ != "ADDED" || obj["kind"] != "Table" || obj["columnDefinitions"] == nil {
		t.Errorf("%s %v", typ, obj)
	}
	h.ok("POST", podsPath, somePod("q"))
	if _, obj = next(); obj["columnDefinitions"] != nil || obj["rows"] == nil {
		t.Errorf("columns again: %v", obj)
	}
	meta := h.watch(podsPath+"?watch=1"+slowWatch, "Accept: application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")
	if _, obj = meta(); obj["kind"] != "PartialObjectMetadata" || obj["spec"] != nil || name(obj) != "p" {
		t.Errorf("%v", obj)
	}
	req, _ := http.NewRequest("GET", h.http.URL+podsPath+"?watch=1&timeoutSeconds=1", nil)
	req.Header.Set("Accept", "application/vnd.kubernetes.protobuf;stream=watch")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, _ := io.ReadAll(resp.Body)
	if ct := resp.Header.Get("Content-Type"); ct != "application/vnd.kubernetes.protobuf;stream=watch" {
		t.Errorf("content type %s", ct)
	}
	frames := 0
	for rest := all; len(rest) > 4; frames++ {
		n := binary.BigEndian.Uint32(rest)
		if !bytes.Contains(rest[4:4+n], []byte("ADDED")) || !bytes.Contains(rest[4:4+n], []byte("k8s\x00")) {
			t.Errorf("frame %q", rest[4:4+n])
		}
		rest = rest[4+n:]
	}
	if frames != 2 {
		t.Errorf("%d frames", frames)
	}
}

func TestBookmarkRevision(t *testing.T) {
	h := newHarness(t)
	next := h.watch(cms + "?watch=1&timeoutSeconds=1&allowWatchBookmarks=true")
	r := h.ok("POST", podsPath, somePod("p")) // another kind moves the revision on
	typ, obj := next()
	if m, _ := obj["metadata"].(map[string]any); typ != "BOOKMARK" || m["resourceVersion"] != r.at("metadata", "resourceVersion") {
		t.Errorf("%s %v, want revision %v", typ, obj, r.at("metadata", "resourceVersion"))
	}
	if strings.Contains(string(r.body), "\n\n") {
		t.Error("two lines")
	}
}
