package registry

import (
	"encoding/json"
	"net/http"
	"os"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Mirror serves the images by the OCI distribution protocol, below /v2/, to read.
// The query parameter ns says which registry's name space is meant. Who may ask
// is the caller's business.
func (s *Store) Mirror() http.Handler { return http.HandlerFunc(s.mirror) }

func (s *Store) mirror(w http.ResponseWriter, r *http.Request) {
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", `this registry is read-only: "proa image import" adds images`)
		return
	case ok && rest == "":
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte("{}"))
		return
	}
	if repository, reference, ok := cutLast(rest, "/manifests/"); ok {
		s.serveManifest(w, r, repository, reference)
		return
	}
	if _, digest, ok := cutLast(rest, "/blobs/"); ok {
		s.serveBlob(w, r, digest)
		return
	}
	fail(w, http.StatusNotFound, "NAME_UNKNOWN", "no such path")
}

func (s *Store) serveManifest(w http.ResponseWriter, r *http.Request, repository, reference string) {
	d, ok := s.find(r.URL.Query().Get("ns"), repository, reference)
	if !ok {
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", repository+":"+reference+" was not imported into the cluster")
		return
	}
	data, err := os.ReadFile(s.blob(d.Digest))
	if err != nil {
		fail(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
		return
	}
	w.Header().Set("Content-Type", string(d.MediaType))
	w.Header().Set("Docker-Content-Digest", d.Digest.String())
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if r.Method == http.MethodGet {
		w.Write(data)
	}
}

func (s *Store) serveBlob(w http.ResponseWriter, r *http.Request, reference string) {
	digest, err := v1.NewHash(reference)
	if err != nil || digest.Algorithm != "sha256" {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", "a digest is sha256:HEX")
		return
	}
	f, err := os.Open(s.blob(digest))
	if err != nil {
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "no such blob")
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		fail(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest.String())
	http.ServeContent(w, r, "", info.ModTime(), f)
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	type problem struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	_ = json.NewEncoder(w).Encode(map[string][]problem{"errors": {{code, message}}})
}
