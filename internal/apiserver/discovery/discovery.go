// Package discovery tells clients what is served: groups, versions and
// resources, one by one and all at once (aggregated discovery, KEP-3352). The
// documents are made from the catalog when they are first asked for and kept
// until the catalog changes.
package discovery

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/negotiate"
)

// Handler answers /api, /apis and what is below them, down to the lists of
// resources.
type Handler struct {
	catalog *api.Catalog
	log     *slog.Logger

	// Others are groups that somebody else serves (aggregated API servers); they
	// come after our own. nil = none. Set it before the first request.
	Others func() []apidiscoveryv2.APIGroupDiscovery

	mu   sync.Mutex
	of   []*api.Kind // what docs were made from
	docs map[string]document
	had  bool // docs tell of Others
}

type document struct {
	body []byte
	etag string
}

// New handler.
func New(catalog *api.Catalog, log *slog.Logger) *Handler {
	return &Handler{catalog: catalog, log: log}
}

// Serve answers a discovery request; false = the path leads nowhere.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request) bool {
	path := strings.TrimSuffix(r.URL.Path, "/")
	want, whole := accept(r)
	if path != "/api" && path != "/apis" {
		whole = ""
	}
	key := path + " " + whole + " " + strconv.Itoa(int(want.Media))
	if path == "/api" && whole == "" {
		key += r.Host
	}
	doc, ok := h.document(key, func() (runtime.Object, schema.GroupVersionKind, bool) { return h.make(path, whole, r.Host) }, want.Media)
	if !ok {
		return false
	}
	head := w.Header()
	head.Set("Content-Type", want.Media.ContentType())
	if whole != "" {
		head.Set("Content-Type", want.Media.ContentType()+";g=apidiscovery.k8s.io;v="+whole+";as=APIGroupDiscoveryList")
	}
	head.Set("Vary", "Accept")
	if whole != "" {
		head.Set("ETag", doc.etag)
		head.Set("Cache-Control", "public")
		if r.Header.Get("If-None-Match") == doc.etag {
			w.WriteHeader(http.StatusNotModified)
			return true
		}
	} else {
		head.Set("Cache-Control", "no-cache, private")
	}
	head.Set("Content-Length", strconv.Itoa(len(doc.body)))
	if r.Method != http.MethodHead {
		w.Write(doc.body)
	}
	return true
}

// accept finds the media, and the version of aggregated discovery if that is wanted.
func accept(r *http.Request) (negotiate.Want, string) {
	for part := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		part = strings.ReplaceAll(part, " ", "")
		media, params, _ := strings.Cut(part, ";")
		m, err := wire.ParseMedia(media)
		if err != nil || !strings.Contains(params, "as=APIGroupDiscoveryList") || !strings.Contains(params, "g=apidiscovery.k8s.io") {
			if err == nil && media != "" && params == "" {
				return negotiate.Want{Media: m}, ""
			}
			continue
		}
		for p := range strings.SplitSeq(params, ";") {
			if p == "v=v2" || p == "v=v2beta1" {
				return negotiate.Want{Media: m}, p[2:]
			}
		}
	}
	return negotiate.Want{}, ""
}

// document under a key, made on first need.
func (h *Handler) document(key string, create func() (runtime.Object, schema.GroupVersionKind, bool), m wire.Media) (document, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.catalog.All()
	others := h.Others != nil && len(h.Others()) > 0 // they change without telling
	if h.docs == nil || len(now) != len(h.of) || len(now) > 0 && &now[0] != &h.of[0] || others || h.had || len(h.docs) > 1000 {
		h.of, h.docs = now, map[string]document{}
	}
	h.had = others
	if doc, ok := h.docs[key]; ok {
		return doc, true
	}
	obj, gvk, ok := create()
	if !ok {
		return document{}, false
	}
	body, err := wire.Encode(gvk, obj, m)
	if err != nil {
		h.log.Error("discovery", "err", err)
		return document{}, false
	}
	doc := document{body, strconv.Quote(fmt.Sprintf("%X", sha512.Sum512(body)))}
	h.docs[key] = doc
	return doc, true
}

func (h *Handler) make(path, whole, host string) (runtime.Object, schema.GroupVersionKind, bool) {
	kind := func(k string) schema.GroupVersionKind { return schema.GroupVersionKind{Version: "v1", Kind: k} }
	groups := h.groups()
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case whole != "":
		return aggregated(groups, path == "/api", h.Others), schema.GroupVersionKind{Group: "apidiscovery.k8s.io", Version: whole, Kind: "APIGroupDiscoveryList"}, true
	case path == "/api":
		return &metav1.APIVersions{Versions: []string{"v1"}, ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: host}}}, kind("APIVersions"), true
	case path == "/apis":
		list := &metav1.APIGroupList{Groups: []metav1.APIGroup{}}
		for _, g := range groups {
			if g.name != "" {
				list.Groups = append(list.Groups, g.legacy())
			}
		}
		if h.Others != nil {
			for _, g := range h.Others() {
				list.Groups = append(list.Groups, legacyOf(g))
			}
		}
		return list, kind("APIGroupList"), true
	case parts[0] == "api" && len(parts) == 2:
		return resources(groups, "", parts[1])
	case parts[0] == "apis" && len(parts) == 2:
		for _, g := range groups {
			if g.name == parts[1] {
				one := g.legacy()
				return &one, kind("APIGroup"), true
			}
		}
		if h.Others != nil {
			for _, g := range h.Others() {
				if g.Name == parts[1] {
					one := legacyOf(g)
					return &one, kind("APIGroup"), true
				}
			}
		}
	case parts[0] == "apis" && len(parts) == 3:
		return resources(groups, parts[1], parts[2])
	}
	return nil, schema.GroupVersionKind{}, false
}

// group of kinds, its versions in order of preference.
type group struct {
	name     string
	versions []groupVersion
}

type groupVersion struct {
	version string
	kinds   []api.Served
}

// groups of the catalog in its order; core comes first.
func (h *Handler) groups() []*group {
	var all []*group
	find := func(name string) *group {
		for _, g := range all {
			if g.name == name {
				return g
			}
		}
		g := &group{name: name}
		all = append(all, g)
		return g
	}
	find("")
	for _, k := range h.catalog.All() {
		find(k.Group).add(k.Version, api.Served{Kind: k})
	}
	for _, k := range h.catalog.All() { // groups that only older shapes have come last: they are nobody's first choice
		for i := range k.Shapes {
			find(k.Shapes[i].Group).add(k.Shapes[i].Version, api.Served{Kind: k, Shape: &k.Shapes[i]})
		}
	}
	for _, g := range all {
		sort.SliceStable(g.versions, func(i, j int) bool {
			return version.CompareKubeAwareVersionStrings(g.versions[i].version, g.versions[j].version) > 0
		})
	}
	return all
}

func (g *group) add(version string, k api.Served) {
	for i := range g.versions {
		if g.versions[i].version == version {
			g.versions[i].kinds = append(g.versions[i].kinds, k)
			return
		}
	}
	g.versions = append(g.versions, groupVersion{version, []api.Served{k}})
}

func (g *group) legacy() metav1.APIGroup {
	out := metav1.APIGroup{Name: g.name}
	for _, v := range g.versions {
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{GroupVersion: g.name + "/" + v.version, Version: v.version})
	}
	out.PreferredVersion = out.Versions[0]
	return out
}

func legacyOf(g apidiscoveryv2.APIGroupDiscovery) metav1.APIGroup {
	out := metav1.APIGroup{Name: g.Name}
	for _, v := range g.Versions {
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{GroupVersion: g.Name + "/" + v.Version, Version: v.Version})
	}
	if len(out.Versions) > 0 {
		out.PreferredVersion = out.Versions[0]
	}
	return out
}

// resources of a group-version, as a legacy list.
func resources(groups []*group, name, version string) (runtime.Object, schema.GroupVersionKind, bool) {
	for _, g := range groups {
		for _, v := range g.versions {
			if g.name != name || v.version != version {
				continue
			}
			gv := schema.GroupVersion{Group: name, Version: version}
			list := &metav1.APIResourceList{GroupVersion: gv.String(), APIResources: []metav1.APIResource{}}
			for _, k := range v.kinds {
				list.APIResources = append(list.APIResources, resource(k)...)
			}
			sort.SliceStable(list.APIResources, func(i, j int) bool { return list.APIResources[i].Name < list.APIResources[j].Name })
			return list, schema.GroupVersionKind{Version: "v1", Kind: "APIResourceList"}, true
		}
	}
	return nil, schema.GroupVersionKind{}, false
}

func resource(k api.Served) []metav1.APIResource {
	main := metav1.APIResource{
		Name: k.Plural(), SingularName: singular(k), Namespaced: !k.Cluster, Kind: k.GVK().Kind, Verbs: verbs(k),
		ShortNames: short(k), Categories: k.Categories,
	}
	if !k.Virtual {
		main.StorageVersionHash = storageHash(k.Kind)
	}
	all := []metav1.APIResource{main}
	subs := k.Hub().Subresources
	for i := range subs {
		s := &subs[i]
		of := k.GVK()
		sub := metav1.APIResource{Name: k.Plural() + "/" + s.Name, Namespaced: !k.Cluster, Kind: of.Kind, Verbs: subVerbs(s)}
		if !s.Kind.Empty() {
			sub.Kind = s.Kind.Kind
			if s.Kind.GroupVersion() != of.GroupVersion() {
				sub.Group, sub.Version = s.Kind.Group, s.Kind.Version
			}
		}
		all = append(all, sub)
	}
	return all
}

// short names belong to the kind's own group; in an old one they would only be
// ambiguous.
func short(k api.Served) []string {
	if k.Shape != nil && k.Shape.Deprecated != "" && k.Shape.Group != k.Kind.Group {
		return nil
	}
	return k.ShortNames
}

func singular(k api.Served) string {
	if k.Singular != "" {
		return k.Singular
	}
	return strings.ToLower(k.Kind.Kind)
}

func verbs(k api.Served) []string {
	switch {
	case k.Verbs != nil:
		return k.Verbs
	case k.Virtual:
		return []string{"create"}
	}
	return api.AllVerbs
}

func subVerbs(s *api.Subresource) []string {
	if s.Verbs != nil {
		return s.Verbs
	}
	return []string{"get", "patch", "update"}
}

// storageHash changes when what is stored changes its version.
func storageHash(k *api.Kind) string {
	sum := sha256.Sum256([]byte(k.Group + "/" + k.Version + "/" + k.Kind))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

// aggregated is everything of /api or /apis in one document.
func aggregated(groups []*group, core bool, others func() []apidiscoveryv2.APIGroupDiscovery) runtime.Object {
	list := &apidiscoveryv2.APIGroupDiscoveryList{Items: []apidiscoveryv2.APIGroupDiscovery{}}
	for _, g := range groups {
		if (g.name == "") != core || len(g.versions) == 0 {
			continue
		}
		out := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: g.name}}
		for _, v := range g.versions {
			version := apidiscoveryv2.APIVersionDiscovery{Version: v.version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
			for _, k := range v.kinds {
				version.Resources = append(version.Resources, aggregatedResource(k))
			}
			sort.SliceStable(version.Resources, func(i, j int) bool { return version.Resources[i].Resource < version.Resources[j].Resource })
			out.Versions = append(out.Versions, version)
		}
		list.Items = append(list.Items, out)
	}
	if !core && others != nil {
		list.Items = append(list.Items, others()...)
	}
	return list
}

func aggregatedResource(k api.Served) apidiscoveryv2.APIResourceDiscovery {
	gvk := k.GVK()
	out := apidiscoveryv2.APIResourceDiscovery{
		Resource: k.Plural(), SingularResource: singular(k), Verbs: verbs(k), ShortNames: short(k), Categories: k.Categories,
		ResponseKind: &metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind},
		Scope:        apidiscoveryv2.ScopeNamespace,
	}
	if k.Cluster {
		out.Scope = apidiscoveryv2.ScopeCluster
	}
	subs := k.Hub().Subresources
	for i := range subs {
		s := &subs[i]
		of := gvk
		if !s.Kind.Empty() {
			of = s.Kind
		}
		out.Subresources = append(out.Subresources, apidiscoveryv2.APISubresourceDiscovery{
			Subresource: s.Name, Verbs: subVerbs(s),
			ResponseKind: &metav1.GroupVersionKind{Group: of.Group, Version: of.Version, Kind: of.Kind},
		})
	}
	sort.SliceStable(out.Subresources, func(i, j int) bool { return out.Subresources[i].Subresource < out.Subresources[j].Subresource })
	return out
}
