package extension_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const merge = "Content-Type: application/merge-patch+json"

// What a webhook may not say is refused with the reason, and nothing is stored.
func TestWrongAnswers(t *testing.T) {
	s, c := start(t), newConverter(t)
	s.define(c.definition("v1", "v1"))
	s.ok("POST", v1s, v1("a", "h:1"))
	type review = apiextensionsv1.ConversionReview
	set := func(name string, value any) func(*review, []object) {
		return func(_ *review, objs []object) { objs[0]["metadata"].(object)[name] = value }
	}
	for name, x := range map[string]struct {
		spoil func(*review, []object)
		words string
	}{
		"no response":    {func(r *review, _ []object) { r.Response = nil }, "failed: no response provided"},
		"another uid":    {func(r *review, _ []object) { r.Response.UID = "x" }, `failed: expected response.uid=`},
		"another kind":   {func(r *review, _ []object) { r.Kind = "Review" }, "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got apiextensions.k8s.io/v1, Kind=Review"},
		"another review": {func(r *review, _ []object) { r.APIVersion = "apiextensions.k8s.io/v1beta1" }, "failed: expected webhook response of"},
		"a refusal": {func(r *review, _ []object) {
			r.Response.Result = metav1.Status{Status: "Failure", Message: "not today"}
		}, "failed: not today"},
		"no result":       {func(r *review, _ []object) { r.Response.Result = metav1.Status{} }, "failed: response.result.status was '', not 'Success'"},
		"another version": {func(_ *review, o []object) { o[0]["apiVersion"] = "example.com/v3" }, "invalid groupVersion (expected example.com/v2, received example.com/v3)"},
		"another object":  {func(_ *review, o []object) { o[0]["kind"] = "Port" }, "invalid kind (expected HostPort, received Port)"},
		"a name":          {set("name", "b"), "must have the same name: a != b"},
		"a namespace":     {set("namespace", "y"), "must have the same namespace: x != y"},
		"a UID":           {set("uid", "other"), "must have the same UID: "},
		"no metadata":     {func(_ *review, o []object) { delete(o[0], "metadata") }, "must have the same name"},
		"odd metadata":    {func(_ *review, o []object) { o[0]["metadata"] = "m" }, "must have the same name"},
		"odd labels":      {set("labels", object{"a": 1}), "metadata.labels[a] must be a string, but is int64 in converted object"},
		"bad labels":      {set("labels", object{"a b": "c"}), "metadata.labels: Invalid value"},
		"no labels":       {set("labels", "x"), "invalid metadata.labels of type string in converted object"},
		"bad annotations": {set("annotations", object{"a b": "c"}), "metadata.annotations: Invalid value"},
		"one too many": {func(r *review, _ []object) {
			r.Response.ConvertedObjects = append(r.Response.ConvertedObjects, raw("{}"))
		}, "returned 2 objects, expected 1"},
	} {
		t.Run(name, func(t *testing.T) {
			c.spoilWith(x.spoil)
			defer c.spoilWith(nil)
			code, out, _ := s.do("GET", v2s+"/a", "")
			message, _ := out["message"].(string)
			if code != 500 || out["kind"] != "Status" || !strings.HasPrefix(message, "conversion webhook for example.com/v1, Kind=HostPort ") || !strings.Contains(message, x.words) {
				t.Errorf("%d %v", code, out)
			}
			if code, _, _ := s.do("PATCH", v2s+"/a", `{"host":"other"}`, merge); code != 500 {
				t.Errorf("written all the same: %d", code)
			}
			if got := s.stored("a"); got["hostPort"] != "h:1" {
				t.Errorf("stored %v", got)
			}
		})
	}
	if out := s.ok("GET", v2s+"/a", ""); out["host"] != "h" {
		t.Errorf("a mistake was remembered: %v", out)
	}
}

func TestWebhookMayChangeLabelsAndNoOtherMetadata(t *testing.T) {
	s, c := start(t), newConverter(t)
	s.define(c.definition("v1", "v1"))
	s.ok("POST", v1s, v1("a", "h:1"))
	c.spoilWith(func(_ *apiextensionsv1.ConversionReview, objs []object) {
		meta := objs[0]["metadata"].(object)
		meta["labels"] = object{"new": "label"}
		meta["annotations"] = nil
		meta["generation"], meta["finalizers"], meta["resourceVersion"] = 77, []any{"x/y"}, "1"
	})
	meta := s.ok("GET", v2s+"/a", "")["metadata"].(object)
	if at(meta, "labels", "new") != "label" || meta["generation"] != 1.0 || meta["finalizers"] != nil || meta["resourceVersion"] == "1" || meta["managedFields"] == nil {
		t.Errorf("metadata %v", meta)
	}
}

// A webhook that does not answer stops what needs it, in time, and nothing else.
func TestWebhookThatHangs(t *testing.T) {
	s, c := startWith(t, 300*time.Millisecond), newConverter(t)
	s.define(c.definition("v1", "v1"))
	s.ok("POST", v1s, v1("a", "h:1"))
	w := s.watch(v2s + "?watch=true&resourceVersion=" + fmt.Sprint(at(s.ok("GET", v1s, ""), "metadata", "resourceVersion")))
	hang := make(chan struct{})
	c.mu.Lock()
	c.hang = hang
	c.mu.Unlock()
	const words = "conversion webhook for example.com/v1, Kind=HostPort failed: "
	s.fails(500, words, "GET", v2s+"/a", "")
	s.fails(500, words, "GET", v2s, "")
	s.fails(500, words, "GET", v2s, "", "Accept: application/json;as=Table;v=v1;g=meta.k8s.io")
	s.fails(500, words, "GET", v2s+"?fieldSelector=host%3Dh", "")
	s.fails(500, words, "GET", v2s+"?fieldSelector=host%3Dh&watch=true", "")
	s.fails(500, strings.Replace(words, "v1", "v2", 1), "POST", v2s, v2("b", "h", "1"))
	s.fails(500, words, "GET", v2s+"/a/scale", "")
	s.fails(500, words, "PATCH", v2s+"/a/status", `{"status":{"replicas":1}}`, merge)
	if s.stored("b") != nil {
		t.Error("it was stored all the same")
	}
	s.ok("PATCH", v1s+"/a", `{"hostPort":"h:2"}`, merge)
	w.expect("ERROR " + words)
	s.ok("GET", v1s+"/a", "")
	if got := s.ok("GET", v2s, "", "Accept: application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"); len(got["items"].([]any)) != 1 {
		t.Errorf("metadata: %v", got)
	}
	s.ok("DELETE", v2s+"/a", "")
	close(hang)
}

func TestSubresourcesThroughAWebhook(t *testing.T) {
	s, c := start(t), newConverter(t)
	s.define(c.definition("v1", "v1"))
	s.ok("POST", v2s, strings.Replace(v2("a", "h", "1"), "spec:", "status: {replicas: 9}, spec:", 1))
	if got := s.stored("a"); got["status"] != nil || at(got, "spec", "count") != 1.0 {
		t.Errorf("created as %v", got)
	}
	out := s.ok("PATCH", v2s+"/a/status", `{"status":{"replicas":7},"host":"other"}`, merge)
	if at(out, "status", "replicas") != 7.0 || out["host"] != "h" {
		t.Errorf("status is %v", out)
	}
	if got := s.stored("a"); at(got, "status", "count") != 7.0 || got["hostPort"] != "h:1" || at(got, "metadata", "generation") != 1.0 {
		t.Errorf("stored %v", got)
	}
	for path, want := range map[string]string{v1s: "1 7", v2s: "1 7"} {
		out := s.ok("GET", path+"/a/scale", "")
		if got := fmt.Sprint(at(out, "spec", "replicas"), " ", at(out, "status", "replicas")); got != want || out["kind"] != "Scale" {
			t.Errorf("%s: scale %v", path, out)
		}
	}
	if out := s.ok("PATCH", v2s+"/a/scale", `{"spec":{"replicas":3}}`, merge); at(out, "spec", "replicas") != 3.0 {
		t.Errorf("scaled to %v", out)
	}
	scale := `{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: a}, spec: {replicas: 4}}`
	if out := s.ok("PUT", v1s+"/a/scale", scale); at(out, "spec", "replicas") != 4.0 {
		t.Errorf("scaled to %v", out)
	}
	scale = strings.Replace(scale, "4", "5", 1)
	if out := s.ok("PATCH", v2s+"/a/scale?fieldManager=scaler&force=true", scale, "Content-Type: application/apply-patch+yaml"); at(out, "spec", "replicas") != 5.0 {
		t.Errorf("scaled to %v", out)
	}
	if got := s.stored("a"); at(got, "spec", "count") != 5.0 || at(got, "metadata", "generation") != 4.0 {
		t.Errorf("stored %v", got)
	}
	s.fails(409, "the object has been modified", "PUT", v2s+"/a/scale", strings.Replace(scale, "name: a", `name: a, resourceVersion: "1"`, 1))
}

// When another version becomes the one that is stored, what is there stays as it
// is until somebody writes it, even if that changes nothing.
func TestAnotherVersionIsStored(t *testing.T) {
	s, c := start(t), newConverter(t)
	s.define(c.definition("v1", "v1"))
	for _, name := range []string{"a", "b", "d"} {
		s.ok("POST", v1s, v1(name, "h:1"))
	}
	s.ok("PATCH", v1s+"/d", `{"metadata":{"finalizers":["x/y"]}}`, merge)
	s.ok("DELETE", v1s+"/d", "")
	const crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/hostports.example.com"
	d := s.ok("GET", crd, "")
	if got := fmt.Sprint(at(d, "status", "storedVersions")); got != "[v1]" {
		t.Errorf("stored versions %s", got)
	}
	versions := at(d, "spec", "versions").([]any)
	versions[0].(object)["storage"], versions[1].(object)["storage"] = false, true
	text, _ := json.Marshal(d)
	if got := fmt.Sprint(at(s.ok("PUT", crd, string(text)), "status", "storedVersions")); got != "[v1 v2]" {
		t.Errorf("stored versions %s", got)
	}
	s.until("new objects are stored in v2", func() bool {
		s.do("DELETE", v1s+"/c", "")
		s.ok("POST", v1s, v1("c", "h:3"))
		return s.stored("c")["apiVersion"] == "example.com/v2"
	})
	if got := s.stored("a"); got["apiVersion"] != "example.com/v1" {
		t.Errorf("rewritten by itself: %v", got)
	}
	c.reviews()
	for path, want := range map[string]string{v1s: "hostPort", v2s: "host"} {
		for _, item := range s.ok("GET", path, "")["items"].([]any) {
			if item.(object)[want] == nil {
				t.Errorf("%s: %v", path, item)
			}
		}
		if got := s.names(path + "?fieldSelector=" + map[string]string{v1s: "hostPort%3Dh:1", v2s: "host%3Dh,port%3D1"}[path]); got != "a b d" {
			t.Errorf("%s: selected %q", path, got)
		}
	}
	if n := c.reviews(); fmt.Sprint(n) != "[3]" { // c was shown in v1 before
		t.Errorf("mixed lists needed %v", n)
	}
	a := s.ok("GET", v1s+"/a", "")
	text, _ = json.Marshal(a)
	after := s.ok("PUT", v1s+"/a", string(text)) // a storage migration
	if got := s.stored("a"); got["apiVersion"] != "example.com/v2" || got["host"] != "h" || at(after, "metadata", "generation") != 1.0 {
		t.Errorf("after a write: %v", got)
	}
	if again := s.ok("PUT", v1s+"/a", string(mustJSON(t, after))); at(again, "metadata", "resourceVersion") != at(after, "metadata", "resourceVersion") {
		t.Error("a second write that changes nothing is stored")
	}
	s.ok("PATCH", v2s+"/b", `{"metadata":{"labels":{"x":"y"}}}`, merge)
	if got := s.stored("b"); got["host"] != "h" || got["hostPort"] != nil {
		t.Errorf("after a patch: %v", got)
	}
	s.ok("PATCH", v2s+"/d", `{"metadata":{"finalizers":null}}`, merge)
	if s.stored("d") != nil {
		t.Error("d is still there")
	}
	s.fails(422, "v1 was previously a storage version", "PATCH", crd, `{"spec":{"versions":[`+string(mustJSON(t, versions[1]))+`]}}`, merge)
	s.ok("PATCH", crd+"/status", `{"status":{"storedVersions":["v2"]}}`, merge)
	s.ok("PATCH", crd, `{"spec":{"versions":[`+string(mustJSON(t, versions[1]))+`]}}`, merge)
	s.until("v1 is not served", func() bool { code, _, _ := s.do("GET", v1s, ""); return code == 404 })
	s.ok("GET", v2s+"/a", "")
}

// Managers that speak different versions own what they have applied.
func TestManagersInTwoVersions(t *testing.T) {
	s, c := start(t), newConverter(t)
	s.define(c.definition("v1", "v1"))
	apply := "Content-Type: application/apply-patch+yaml"
	s.ok("PATCH", v1s+"/a?fieldManager=one", `{apiVersion: example.com/v1, kind: HostPort, metadata: {name: a}, hostPort: "h:1"}`, apply)
	out := s.ok("PATCH", v2s+"/a?fieldManager=two", `{apiVersion: example.com/v2, kind: HostPort, metadata: {name: a}, host: h, port: "1", spec: {replicas: 2}}`, apply)
	got := map[string]string{}
	for _, f := range at(out, "metadata", "managedFields").([]any) {
		got[fmt.Sprint(at(f, "manager"))] = string(mustJSON(t, at(f, "fieldsV1")))
	}
	if got["one"] != `{"f:hostPort":{}}` || got["two"] != `{"f:host":{},"f:port":{},"f:spec":{"f:replicas":{}}}` {
		t.Errorf("managers %v", got)
	}
	s.fails(409, "conflicts with \"two\":\n- .port", "PATCH", v2s+"/a?fieldManager=three", `{apiVersion: example.com/v2, kind: HostPort, metadata: {name: a}, host: h, port: "2"}`, apply)
}
