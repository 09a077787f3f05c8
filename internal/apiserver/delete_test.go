package apiserver

import (
	"strings"
	"testing"
)

func TestDelete(t *testing.T) {
	h := newHarness(t)
	r := h.ok("POST", cms, cm("a", "1"))
	uid := r.at("metadata", "uid").(string)
	h.fails(409, "Conflict", "the UID in the precondition (x) does not match the UID in record ("+uid+")", "DELETE", cms+"/a", `{"preconditions":{"uid":"x"}}`)
	h.fails(409, "Conflict", "the ResourceVersion in the precondition (1) does not match", "DELETE", cms+"/a", `{"preconditions":{"resourceVersion":"1"}}`)
	h.fails(422, "Invalid", "orphanDependents and deletionPropagation cannot be both set", "DELETE", cms+"/a", `{"orphanDependents":true,"propagationPolicy":"Orphan"}`)
	h.ok("DELETE", cms+"/a?dryRun=All", "")
	d := h.ok("DELETE", cms+"/a", `{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"`+uid+`"}}`)
	if d.at("kind") != "Status" || d.at("status") != "Success" || d.at("details", "name") != "a" || d.at("details", "kind") != "configmaps" || d.at("details", "uid") != uid {
		t.Errorf("deleted %s", d)
	}
	h.fails(404, "NotFound", `configmaps "a" not found`, "DELETE", cms+"/a", "")
}

func TestDeleteFinalizers(t *testing.T) {
	h := newHarness(t)
	h.ok("POST", cms, `{"metadata":{"name":"f","finalizers":["example.org/x"]}}`)
	d := h.ok("DELETE", cms+"/f", "")
	if d.at("kind") != "ConfigMap" || d.at("metadata", "deletionTimestamp") == nil || d.at("metadata", "deletionGracePeriodSeconds") != 0.0 {
		t.Errorf("deleted %s", d)
	}
	again := h.ok("DELETE", cms+"/f", "")
	if again.at("metadata", "resourceVersion") != d.at("metadata", "resourceVersion") {
		t.Errorf("deleted again %s", again)
	}
	h.fails(422, "Invalid", "no new finalizers can be added if the object is being deleted", "PATCH", cms+"/f", `{"metadata":{"finalizers":["example.org/x","example.org/y"]}}`, "Content-Type: application/merge-patch+json")
	conflict := h.fails(409, "AlreadyExists", `object is being deleted: configmaps "f" already exists`, "POST", cms, cm("f", ""))
	_ = conflict
	h.ok("PATCH", cms+"/f", `{"metadata":{"finalizers":null}}`, "Content-Type: application/merge-patch+json")
	h.fails(404, "NotFound", "f", "GET", cms+"/f", "")

	h.ok("POST", cms, cm("o", ""))
	o := h.ok("DELETE", cms+"/o?propagationPolicy=Orphan", "")
	if o.at("metadata", "finalizers", 0) != "orphan" || o.at("metadata", "deletionTimestamp") == nil {
		t.Errorf("orphaning %s", o)
	}
	h.ok("POST", cms, cm("fg", ""))
	fg := h.ok("DELETE", cms+"/fg", `{"propagationPolicy":"Foreground"}`)
	if fg.at("metadata", "finalizers", 0) != "foregroundDeletion" {
		t.Errorf("foreground %s", fg)
	}
	h.ok("POST", cms, cm("old", ""))
	if r := h.ok("DELETE", cms+"/old", `{"orphanDependents":false}`); r.at("status") != "Success" {
		t.Errorf("background %s", r)
	}
}

func TestDeletePod(t *testing.T) {
	h := newHarness(t)
	h.ok("POST", podsPath, somePod("p"))
	if d := h.ok("DELETE", podsPath+"/p", ""); d.at("kind") != "Pod" {
		t.Errorf("a pod on no node goes at once, and is returned: %s", d)
	}
	h.fails(404, "NotFound", "p", "GET", podsPath+"/p", "")

	h.ok("POST", podsPath, somePod("q"))
	h.ok("POST", podsPath+"/q/binding", `{"apiVersion":"v1","kind":"Binding","metadata":{"name":"q"},"target":{"kind":"Node","name":"n"}}`)
	d := h.ok("DELETE", podsPath+"/q", "")
	if d.at("metadata", "deletionGracePeriodSeconds") != 30.0 || d.at("metadata", "deletionTimestamp") == nil {
		t.Errorf("graceful %s", d)
	}
	if d := h.ok("DELETE", podsPath+"/q?gracePeriodSeconds=60", ""); d.at("metadata", "deletionGracePeriodSeconds") != 30.0 {
		t.Errorf("grace was made longer: %s", d)
	}
	if d := h.ok("DELETE", podsPath+"/q?gracePeriodSeconds=5", ""); d.at("metadata", "deletionGracePeriodSeconds") != 5.0 {
		t.Errorf("grace was not made shorter: %s", d)
	}
	h.ok("DELETE", podsPath+"/q?gracePeriodSeconds=0", "")
	h.fails(404, "NotFound", "q", "GET", podsPath+"/q", "")
}

func TestDeleteCollection(t *testing.T) {
	h := newHarness(t)
	for _, n := range []string{"a", "b", "c"} {
		h.ok("POST", cms, cm(n, ""))
	}
	r := h.ok("DELETE", cms+"?labelSelector=app%20in%20(a,b)", "")
	if r.at("kind") != "ConfigMapList" || names(r) != "a b" {
		t.Errorf("deleted %s", r)
	}
	if left := names(h.ok("GET", cms, "")); left != "c" {
		t.Errorf("left %s", left)
	}
}

func TestNamespaceEnds(t *testing.T) {
	h := newHarness(t)
	r := h.ok("POST", "/api/v1/namespaces", `{"metadata":{"name":"n"}}`)
	if r.at("spec", "finalizers", 0) != "kubernetes" || r.at("status", "phase") != "Active" || r.at("metadata", "labels", "kubernetes.io/metadata.name") != "n" {
		t.Errorf("created %s", r)
	}
	d := h.ok("DELETE", "/api/v1/namespaces/n", "")
	if d.at("status", "phase") != "Terminating" || d.at("metadata", "deletionTimestamp") == nil {
		t.Errorf("deleted %s", d)
	}
	body := strings.Replace(string(d.body), `"finalizers":["kubernetes"]`, `"finalizers":[]`, 1)
	h.ok("PUT", "/api/v1/namespaces/n/finalize", body)
	h.fails(404, "NotFound", `namespaces "n" not found`, "GET", "/api/v1/namespaces/n", "")
}
