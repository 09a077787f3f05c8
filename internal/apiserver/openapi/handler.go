// Package openapi serves the OpenAPI documents: /openapi/v2 whole, /openapi/v3
// per group and version, both as JSON and as protobuf.
//
// The schemas were made when the binary was built and lie in it compressed;
// nothing is read at start. A document is put together when it is first asked
// for, from the schemas and from the catalog (which gives the paths), and then
// kept compressed, as it is sent, until the catalog says something else.
package openapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"sort"
	"strings"
	"sync"
	"time"
	"weak"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"github.com/munnerz/goautoneg"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
)

// Handler answers /openapi/v2, /openapi/v3 and /openapi/v3/….
type Handler struct {
	catalog *api.Catalog
	version string

	mu    sync.Mutex
	extra map[schema.GroupVersionKind]extraSchema
	docs  map[string]*document // by path below /openapi/: v2, v3/apis/apps/v1

	// unpacked are the built-in definitions for as long as the next collection
	// leaves them: who asks for one document often asks for the next.
	unpacked weak.Pointer[map[string]Definition]

	others others
}

type extraSchema struct {
	def  Definition
	hash string
}

// document is one that has been asked for. Its parts are compressed.
type document struct {
	hash  string
	parts map[string][]byte // by media type
}

// New serves what is in the catalog, at any time. version is what the
// documents say the server is: v1.36.3.
func New(catalog *api.Catalog, version string) *Handler {
	return &Handler{
		catalog: catalog,
		version: version,
		extra:   map[schema.GroupVersionKind]extraSchema{},
		docs:    map[string]*document{},
	}
}

// Merge gives a kind that is not built in its schema, or replaces it. The
// schema is that of one object; it must not refer to others than the built-in
// ones, and needs no x-kubernetes-group-version-kind: that is added. The kind's
// paths and list come from the catalog as for any other.
func (h *Handler) Merge(gvk schema.GroupVersionKind, def Definition) error {
	for version, text := range map[int]*[]byte{2: &def.V2, 3: &def.V3} {
		marked, err := markKind(*text, gvk)
		if err != nil {
			return fmt.Errorf("OpenAPI v%d schema of %v: %w", version, gvk, err)
		}
		*text = marked
	}
	sum := sha256.Sum256(append(append([]byte(nil), def.V3...), def.V2...))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.extra[gvk] = extraSchema{def: def, hash: hex.EncodeToString(sum[:8])}
	return nil
}

// Forget takes back what Merge gave.
func (h *Handler) Forget(gvk schema.GroupVersionKind) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.extra, gvk)
}

func markKind(text []byte, gvk schema.GroupVersionKind) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, err
	}
	mark, err := json.Marshal([]map[string]string{{"group": gvk.Group, "kind": gvk.Kind, "version": gvk.Version}})
	if err != nil {
		return nil, err
	}
	if fields == nil {
		fields = map[string]json.RawMessage{}
	}
	fields["x-kubernetes-group-version-kind"] = mark
	return json.Marshal(fields)
}

const (
	mediaJSON = "application/json"
	mediaV2   = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	mediaV3   = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD are allowed here", http.StatusMethodNotAllowed)
		return
	}
	switch key := strings.Trim(strings.TrimPrefix(r.URL.Path, "/openapi/"), "/"); {
	case key == "v3":
		h.serveIndex(w, r)
	case key == "v2":
		h.serveDocument(w, r, key, mediaV2)
	case strings.HasPrefix(key, "v3/"):
		h.serveDocument(w, r, key, mediaV3)
	default:
		http.NotFound(w, r)
	}
}

// serveIndex names the v3 documents with their hashes.
func (h *Handler) serveIndex(w http.ResponseWriter, r *http.Request) {
	type entry struct {
		URL string `json:"serverRelativeURL"`
	}
	paths := map[string]entry{}
	for gv, kinds := range versions(h.catalog) {
		key := "v3/" + groupPath(gv)
		paths[groupPath(gv)] = entry{hashedURL(key, h.hash(kinds))}
	}
	for _, x := range h.others.each(r.Context(), func(ctx context.Context, x *other) error { return x.index(ctx) }) {
		if key := groupPath(x.GroupVersion); paths[key].URL == "" {
			paths[key] = entry{x.entry()}
		}
	}
	text, err := json.Marshal(map[string]any{"paths": paths})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	sum := sha256.Sum256(text)
	w.Header().Set("ETag", `"`+strings.ToUpper(hex.EncodeToString(sum[:]))+`"`)
	w.Header().Set("Content-Type", mediaJSON)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
}

func hashedURL(key, hash string) string {
	u := url.URL{Path: "/openapi/" + key, RawQuery: url.Values{"hash": {hash}}.Encode()}
	return u.String()
}

func (h *Handler) serveDocument(w http.ResponseWriter, r *http.Request, key, protobuf string) {
	var kinds []api.Served
	var parts []*other
	if key == "v2" {
		parts = h.others.each(r.Context(), func(ctx context.Context, x *other) error { return x.refresh(ctx) })
		for _, of := range versions(h.catalog) {
			kinds = append(kinds, of...)
		}
		sortServed(kinds)
	} else {
		for gv, of := range versions(h.catalog) {
			if "v3/"+groupPath(gv) == key {
				kinds = of
			}
		}
		if kinds == nil {
			if x := h.others.find(key); x != nil {
				x.serve(w, r)
				return
			}
			http.NotFound(w, r)
			return
		}
	}
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	media := accepted(r.Header.Get("Accept"), protobuf)
	if media == "" {
		w.WriteHeader(http.StatusNotAcceptable)
		return
	}
	hash := h.hash(kinds, parts...)
	if asked := r.URL.Query().Get("hash"); asked != "" && asked != hash {
		http.Redirect(w, r, hashedURL(key, hash), http.StatusMovedPermanently)
		return
	} else if asked != "" {
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	}
	w.Header().Set("ETag", `"`+hash+`"`)
	if strings.Contains(r.Header.Get("If-None-Match"), `"`+hash+`"`) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	part, err := h.part(key, hash, media, kinds, parts)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", media)
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(part))
		return
	}
	if text, err := gzip.NewReader(bytes.NewReader(part)); err == nil && r.Method == http.MethodGet {
		io.Copy(w, text) //nolint:errcheck // the client is gone
	}
}

// accepted chooses JSON or the protobuf media type, "" when neither is wanted.
// Old clients write the protobuf type with an @ where it now has a dot.
func accepted(header, protobuf string) string {
	if header == "" {
		return mediaJSON
	}
	for _, clause := range goautoneg.ParseAccept(header) {
		switch media := clause.Type + "/" + clause.SubType; {
		case media == mediaJSON, media == "*/*", media == "application/*":
			return mediaJSON
		case media == protobuf, strings.Replace(media, "@v1.0", ".v1.0", 1) == protobuf:
			return protobuf
		}
	}
	return ""
}

// hash stands for what a document of these kinds says.
func (h *Handler) hash(kinds []api.Served, parts ...*other) string {
	sum := sha256.New()
	// gzip ends with a checksum of what is in it.
	fmt.Fprintf(sum, "%s %x %d\n", h.version, packed[len(packed)-8:], len(types))
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range kinds {
		fmt.Fprintln(sum, s.GVK(), s.Plural(), s.Cluster, s.Verbs, s.Virtual, h.extra[s.GVK()].hash)
		for _, sub := range s.Hub().Subresources {
			fmt.Fprintln(sum, sub.Name, sub.Kind, sub.Verbs)
		}
	}
	for _, x := range parts {
		fmt.Fprintln(sum, x.GroupVersion, x.version())
	}
	return strings.ToUpper(hex.EncodeToString(sum.Sum(nil)))
}

// part is a document in one media type, compressed; made if it is not there.
func (h *Handler) part(key, hash, media string, kinds []api.Served, parts []*other) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	doc := h.docs[key]
	if doc == nil || doc.hash != hash {
		doc = &document{hash: hash, parts: map[string][]byte{}}
	}
	if part := doc.parts[media]; part != nil {
		return part, nil
	}
	text, err := h.build(key, kinds)
	if err == nil && len(parts) > 0 {
		text, err = merged(text, documents(parts))
	}
	if err != nil {
		return nil, err
	}
	switch media {
	case mediaV2:
		text, err = protobufV2(text)
	case mediaV3:
		text, err = protobufV3(text)
	}
	if err != nil {
		return nil, fmt.Errorf("%s as protobuf: %w", key, err)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	doc.parts[media] = packed.Bytes()
	h.docs[key] = doc
	if media != mediaJSON {
		// The models behind the protobuf are tens of megabytes, made once in a
		// server's life: they should not count as its size until the next collection.
		defer debug.FreeOSMemory()
	}
	return doc.parts[media], nil
}

// definitions are the built-in ones, for the caller to add to. h.mu is held.
func (h *Handler) definitions() (map[string]Definition, error) {
	all := h.unpacked.Value()
	if all == nil {
		defs, err := definitions()
		if err != nil {
			return nil, err
		}
		all = &defs
		h.unpacked = weak.Make(all)
	}
	return maps.Clone(*all), nil
}

func protobufV2(text []byte) ([]byte, error) {
	doc, err := openapi_v2.ParseDocument(text)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(doc)
}

func protobufV3(text []byte) ([]byte, error) {
	doc, err := openapi_v3.ParseDocument(text)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(doc)
}

// versions groups what is served by group and version, in a fixed order.
func versions(c *api.Catalog) map[schema.GroupVersion][]api.Served {
	out := map[schema.GroupVersion][]api.Served{}
	add := func(s api.Served) { gv := s.GVK().GroupVersion(); out[gv] = append(out[gv], s) }
	for _, k := range c.All() {
		add(api.Served{Kind: k})
		for i := range k.Shapes {
			add(api.Served{Kind: k, Shape: &k.Shapes[i]})
		}
	}
	for _, kinds := range out {
		sortServed(kinds)
	}
	return out
}

func sortServed(kinds []api.Served) {
	sort.Slice(kinds, func(i, j int) bool {
		a, b := kinds[i].GVK(), kinds[j].GVK()
		if a.Group != b.Group {
			return a.Group < b.Group
		}
		if a.Version != b.Version {
			return a.Version < b.Version
		}
		return kinds[i].Plural() < kinds[j].Plural()
	})
}

// groupPath is api/v1 or apis/GROUP/VERSION.
func groupPath(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.Group + "/" + gv.Version
}
