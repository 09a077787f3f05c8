package openapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/openapiconv"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Other is an API server, run by somebody else, whose documents of one group and
// version are shown as part of ours (API aggregation, KEP-2896).
type Other struct {
	schema.GroupVersion
	// Key is another one when another server stands behind the group and version.
	Key string
	// Get asks the server for a path ("/openapi/v3"), with a header.
	Get func(ctx context.Context, path string, header http.Header) (*http.Response, error)
}

const (
	// askWithin is how long a server may take to answer about its documents: ours
	// wait for it.
	askWithin = 5 * time.Second
	// askAgain is how long an answer is good. Who reads one document often reads
	// another right after it.
	askAgain = 10 * time.Second
	// maxDocument of another server, in bytes.
	maxDocument = 64 << 20
)

// others are the servers that are there now, and what they said last.
type others struct {
	list func() []Other // nil = none

	mu    sync.Mutex
	known map[string]*other // by Key
}

// other is what a server said.
type other struct {
	Other
	mu    sync.Mutex
	asked time.Time
	url   string // of its v3 document, "" = it has none

	etag string // of its v2 document
	sum  string
	two  *swagger // what of it belongs to the group and version
}

// SetOthers tells where other servers are found. Call it before the first request.
func (h *Handler) SetOthers(list func() []Other) { h.others.list = list }

// now are the servers that are there. What is known of those that are gone is
// forgotten.
func (o *others) now() []*other {
	if o.list == nil {
		return nil
	}
	all := o.list()
	o.mu.Lock()
	defer o.mu.Unlock()
	known := map[string]*other{}
	found := make([]*other, len(all))
	for i, x := range all {
		had := o.known[x.Key]
		if had == nil {
			had = &other{Other: x}
		}
		known[x.Key], found[i] = had, had
	}
	o.known = known
	return found
}

// each does something with all servers at the same time. Those that fail are
// passed over.
func (o *others) each(ctx context.Context, do func(context.Context, *other) error) (good []*other) {
	all := o.now()
	failed := make([]error, len(all))
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var wait sync.WaitGroup
	for i, x := range all {
		wait.Go(func() { failed[i] = do(ctx, x) })
	}
	wait.Wait()
	for i, x := range all {
		if failed[i] == nil {
			good = append(good, x)
		}
	}
	return good
}

// find the server of a v3 document, nil if there is none.
func (o *others) find(key string) *other {
	for _, x := range o.now() {
		if "v3/"+groupPath(x.GroupVersion) == key {
			return x
		}
	}
	return nil
}

var errNotThere = errors.New("the server has no such document")

// get a document as JSON. etag is of the one that is known: nil, nil = it is the same.
func (x *other) get(ctx context.Context, path, etag string) ([]byte, http.Header, error) {
	head := http.Header{"Accept": {mediaJSON}}
	if etag != "" {
		head.Set("If-None-Match", etag)
	}
	a, err := x.Get(ctx, path, head)
	if err != nil {
		return nil, nil, err
	}
	defer a.Body.Close()
	switch a.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		return nil, nil, nil
	case http.StatusNotFound:
		return nil, nil, errNotThere
	default:
		return nil, nil, fmt.Errorf("%s: %s", path, a.Status)
	}
	text, err := io.ReadAll(io.LimitReader(a.Body, maxDocument+1))
	if len(text) > maxDocument {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxDocument)
	}
	return text, a.Header, err
}

// index asks where the server's v3 document is. A server that has none is asked
// for its v2 document, from which one is made.
func (x *other) index(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.asked.IsZero() && time.Since(x.asked) < askAgain {
		return nil
	}
	text, _, err := x.get(ctx, "/openapi/v3", "")
	if err != nil && !errors.Is(err, errNotThere) {
		return err
	}
	var root struct {
		Paths map[string]struct {
			URL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err == nil {
		if err := json.Unmarshal(text, &root); err != nil {
			return err
		}
	}
	x.url = root.Paths[groupPath(x.GroupVersion)].URL
	if x.url == "" {
		if err := x.readV2(ctx); err != nil {
			return err
		}
	}
	x.asked = time.Now()
	return nil
}

// entry of the index.
func (x *other) entry() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.url != "" {
		return x.url
	}
	return hashedURL("v3/"+groupPath(x.GroupVersion), x.sum)
}

// refresh what is known of the v2 document.
func (x *other) refresh(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.readV2(ctx)
}

// version of what is known of the v2 document.
func (x *other) version() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.sum
}

// documents are what is known of v2 documents.
func documents(all []*other) (parts []*swagger) {
	for _, x := range all {
		x.mu.Lock()
		parts = append(parts, x.two)
		x.mu.Unlock()
	}
	return parts
}

// readV2 reads the part of the v2 document that is about the group and version.
// mu is held.
func (x *other) readV2(ctx context.Context) error {
	text, head, err := x.get(ctx, "/openapi/v2", x.etag)
	if err != nil || text == nil {
		return err
	}
	two, err := partOf(text, x.GroupVersion)
	if err != nil {
		return err
	}
	whole, err := json.Marshal(two)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(whole)
	x.two, x.sum, x.etag = two, strings.ToUpper(hex.EncodeToString(sum[:])), head.Get("ETag")
	return nil
}

// serve a v3 document: the server's own, or what its v2 document says.
func (x *other) serve(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 4*askWithin)
	defer cancel()
	if err := x.index(ctx); err != nil {
		http.Error(w, "the API server of "+x.GroupVersion.String()+" does not tell its schemas: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	x.mu.Lock()
	url, two := x.url, x.two
	x.mu.Unlock()
	if url == "" {
		x.made(w, r, two)
		return
	}
	head := http.Header{}
	for _, name := range []string{"Accept", "Accept-Encoding", "If-None-Match", "If-Modified-Since"} {
		if v := r.Header.Values(name); len(v) > 0 {
			head[name] = v
		}
	}
	if head.Get("Accept-Encoding") == "" {
		head.Set("Accept-Encoding", "identity") // or what comes would be unpacked on the way
	}
	a, err := x.Get(ctx, r.URL.RequestURI(), head)
	if err != nil {
		http.Error(w, "the API server of "+x.GroupVersion.String()+" does not tell its schemas: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer a.Body.Close()
	for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Length", "ETag", "Cache-Control", "Expires", "Vary", "Last-Modified", "Location"} {
		if v := a.Header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	w.WriteHeader(a.StatusCode)
	if r.Method != http.MethodHead {
		io.Copy(w, a.Body) //nolint:errcheck // the client is gone
	}
}

// made is a v3 document that is made of a v2 document.
func (x *other) made(w http.ResponseWriter, r *http.Request, two *swagger) {
	media := accepted(r.Header.Get("Accept"), mediaV3)
	if media == "" {
		w.WriteHeader(http.StatusNotAcceptable)
		return
	}
	text, err := toV3(two)
	if err == nil && media == mediaV3 {
		text, err = protobufV3(text)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", media)
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
}

// toV3 converts a v2 document.
func toV3(two *swagger) ([]byte, error) {
	text, err := json.Marshal(two)
	if err != nil {
		return nil, err
	}
	var old spec.Swagger
	if err := json.Unmarshal(text, &old); err != nil {
		return nil, err
	}
	return json.Marshal(openapiconv.ConvertV2ToV3(&old))
}
