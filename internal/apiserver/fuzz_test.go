package apiserver

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzRequest sends anything to the real chain: it may be refused, but with a
// Status, and without a panic (which would be a 500).
func FuzzRequest(f *testing.F) {
	h := newHarness(f)
	handler := h.server.Handler()
	f.Add("POST", "configmaps", "", "application/json", cm("a", "b"))
	f.Add("POST", "pods", "fieldValidation=Strict", "application/yaml", "metadata: {name: x}\nspec: {containers: [{name: c, image: i}]}\n")
	f.Add("PATCH", "configmaps/a", "force=1&fieldManager=x", "application/apply-patch+yaml", cm("a", "c"))
	f.Add("PATCH", "configmaps/a", "", "application/strategic-merge-patch+json", `{"data":{"$patch":"replace"}}`)
	f.Add("GET", "configmaps", "labelSelector=a&limit=1&continue=x&resourceVersion=0", "", "")
	f.Add("DELETE", "configmaps/a", "gracePeriodSeconds=-1", "application/json", `{"propagationPolicy":"Orphan"}`)
	f.Add("PUT", "services/s", "dryRun=All", "application/vnd.kubernetes.protobuf", "k8s\x00\n\x00")
	f.Fuzz(func(t *testing.T, method, path, query, ctype, body string) {
		switch method {
		case "GET", "POST", "PUT", "PATCH", "DELETE":
		default:
			return
		}
		if strings.ContainsAny(path+query+ctype, " \r\n\t#%?\x00\x7f") || strings.Contains(query, "watch") || strings.Contains(path, "watch") || strings.Contains(query, "resourceVersion=") {
			return // not a request of HTTP, or one that waits
		}
		r, err := http.NewRequest(method, "http://x/api/v1/namespaces/default/"+path+"?"+query, strings.NewReader(body))
		if err != nil {
			return
		}
		r.Header.Set("Content-Type", ctype)
		r.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code == 500 && strings.Contains(w.Body.String(), "panic") {
			t.Errorf("%s %s?%s %q: %s", method, path, query, body, w.Body)
		}
	})
}
