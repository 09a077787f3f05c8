package openapi

import (
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
)

// operation is one verb on one path, in no particular OpenAPI version.
type operation struct {
	path, method string
	action       string // x-kubernetes-action: list, put, …
	id, about    string
	tag          string
	gvk          schema.GroupVersionKind
	options      string   // the definition whose fields are the query parameters
	body         string   // definition of the body, "" = none
	bodyTypes    []string // nil = any
	bodyOptional bool
	streams      bool   // may answer a watch
	codes        []int  // 200 …
	answer       string // definition of the answer, "" = text
}

const meta = "io.k8s.apimachinery.pkg.apis.meta.v1."

// operations are those of one served kind, as its descriptor says. self and
// list are the definitions of the object and of its list.
func operations(s api.Served, self, list string) []operation {
	p := pathMaker{s: s, gv: s.GVK().GroupVersion()}
	p.idGroup, p.tag = idNames(p.gv)
	scope := "Namespaced"
	if s.Cluster {
		scope = ""
	}
	kind := s.GVK().Kind
	base := "/" + groupPath(p.gv)
	all := base + "/" + s.Plural()
	if !s.Cluster {
		base += "/namespaces/{namespace}"
	}
	many := base + "/" + s.Plural()
	one := many + "/{name}"

	has := s.Does
	if s.Virtual && s.Verbs == nil {
		has = func(verb string) bool { return verb == "create" }
	}
	if has("list") {
		p.add(operation{path: many, method: "get", action: "list", id: "list" + p.idGroup + scope + kind,
			about: "list or watch objects of kind " + kind, options: "ListOptions", streams: true, codes: []int{200}, answer: list})
		if !s.Cluster {
			p.add(operation{path: all, method: "get", action: "list", id: "list" + p.idGroup + kind + "ForAllNamespaces",
				about: "list or watch objects of kind " + kind, options: "ListOptions", streams: true, codes: []int{200}, answer: list})
		}
	}
	if has("create") {
		p.add(operation{path: many, method: "post", action: "post", id: "create" + p.idGroup + scope + kind,
			about: "create " + article(kind), options: "CreateOptions", body: self, codes: []int{200, 201, 202}, answer: self})
	}
	if has("deletecollection") {
		p.add(operation{path: many, method: "delete", action: "deletecollection", id: "delete" + p.idGroup + "Collection" + scope + kind,
			about: "delete collection of " + kind, options: "DeleteOptions+ListOptions", body: meta + "DeleteOptions", bodyOptional: true,
			codes: []int{200}, answer: meta + "Status"})
	}
	if has("get") {
		p.add(operation{path: one, method: "get", action: "get", id: "read" + p.idGroup + scope + kind,
			about: "read the specified " + kind, codes: []int{200}, answer: self})
	}
	if has("update") {
		p.add(operation{path: one, method: "put", action: "put", id: "replace" + p.idGroup + scope + kind,
			about: "replace the specified " + kind, options: "UpdateOptions", body: self, codes: []int{200, 201}, answer: self})
	}
	if has("patch") {
		p.add(operation{path: one, method: "patch", action: "patch", id: "patch" + p.idGroup + scope + kind,
			about: "partially update the specified " + kind, options: "PatchOptions", body: meta + "Patch", bodyTypes: patchTypes(s),
			codes: []int{200, 201}, answer: self})
	}
	if has("delete") {
		p.add(operation{path: one, method: "delete", action: "delete", id: "delete" + p.idGroup + scope + kind,
			about: "delete " + article(kind), options: "DeleteOptions", body: meta + "DeleteOptions", bodyOptional: true,
			codes: []int{200, 202}, answer: meta + "Status"})
	}
	subs := s.Hub().Subresources
	for i := range subs {
		p.subresource(&subs[i], one, scope, self)
	}
	return p.ops
}

type pathMaker struct {
	s            api.Served
	gv           schema.GroupVersion
	idGroup, tag string
	ops          []operation
}

func (p *pathMaker) add(op operation) {
	if op.gvk.Empty() {
		op.gvk = p.s.GVK()
	}
	op.tag = p.tag
	p.ops = append(p.ops, op)
}

func (p *pathMaker) subresource(sub *api.Subresource, one, scope, self string) {
	kind := p.s.GVK().Kind
	id := p.idGroup + scope + kind + title(sub.Name)
	path := one + "/" + sub.Name
	gvk, body := sub.Kind, self
	if gvk.Empty() {
		gvk = p.s.GVK()
	}
	if sub.Body != nil {
		body = NameOf(sub.Body())
	}
	if strings.HasSuffix(gvk.Kind, "Options") {
		p.connect(sub, path, gvk)
		return
	}
	if sub.Name == "log" {
		p.add(operation{path: path, method: "get", action: "get", id: "read" + id, about: "read log of the specified " + kind,
			options: "PodLogOptions", codes: []int{200}})
		return
	}
	verbs := sub.Verbs
	if verbs == nil {
		verbs = []string{"get", "patch", "update"}
	}
	what := sub.Name + " of the specified " + kind
	for _, verb := range verbs {
		switch verb {
		case "get":
			p.add(operation{path: path, method: "get", action: "get", id: "read" + id, about: "read " + what, gvk: gvk,
				codes: []int{200}, answer: body})
		case "update":
			p.add(operation{path: path, method: "put", action: "put", id: "replace" + id, about: "replace " + what, gvk: gvk,
				options: "UpdateOptions", body: body, codes: []int{200, 201}, answer: body})
		case "patch":
			p.add(operation{path: path, method: "patch", action: "patch", id: "patch" + id, about: "partially update " + what, gvk: gvk,
				options: "PatchOptions", body: meta + "Patch", bodyTypes: patchTypes(p.s), codes: []int{200, 201}, answer: body})
		case "create":
			p.add(operation{path: path, method: "post", action: "post", id: "create" + id, about: "create " + sub.Name + " of " + article(kind), gvk: gvk,
				options: "CreateOptions", body: body, codes: []int{200, 201, 202}, answer: body})
		}
	}
}

// connect is a subresource that takes the connection over: exec, proxy.
func (p *pathMaker) connect(sub *api.Subresource, path string, gvk schema.GroupVersionKind) {
	kind := p.s.GVK().Kind
	methods := []string{"get", "post"}
	paths := map[string]string{path: ""}
	if sub.Name == "proxy" {
		methods = []string{"get", "post", "put", "patch", "delete", "head", "options"}
		paths[path+"/{path}"] = "WithPath"
	}
	for path, suffix := range paths {
		for _, method := range methods {
			scope := "Namespaced"
			if p.s.Cluster {
				scope = ""
			}
			p.add(operation{path: path, method: method, action: "connect", gvk: gvk,
				id:      "connect" + p.idGroup + title(method) + scope + kind + title(sub.Name) + suffix,
				about:   "connect " + strings.ToUpper(method) + " requests to " + sub.Name + " of " + kind,
				options: gvk.Kind, codes: []int{200}})
		}
	}
}

func patchTypes(s api.Served) []string {
	types := []string{"application/json-patch+json", "application/merge-patch+json"}
	if s.Encoding == api.Protobuf {
		types = append(types, "application/strategic-merge-patch+json")
	}
	return append(types, "application/apply-patch+yaml")
}

// idNames are how a group and version look in an operation's id and tag:
// rbac.authorization.k8s.io/v1 is RbacAuthorizationV1 and rbacAuthorization_v1.
func idNames(gv schema.GroupVersion) (id, tag string) {
	group := strings.TrimSuffix(gv.Group, ".k8s.io")
	if group == "" {
		group = "core"
	}
	var name strings.Builder
	for _, part := range strings.FieldsFunc(group, func(r rune) bool { return r == '.' || r == '-' }) {
		name.WriteString(title(part))
	}
	id = name.String()
	return id + title(gv.Version), strings.ToLower(id[:1]) + id[1:] + "_" + gv.Version
}

func title(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func article(kind string) string {
	if strings.HasSuffix(kind, "s") && !strings.HasSuffix(kind, "ss") {
		return kind // Endpoints
	}
	if strings.Contains("AEIOU", kind[:1]) {
		return "an " + kind
	}
	return "a " + kind
}

// byPath groups operations by path; keys in order.
func byPath(ops []operation) (map[string][]operation, []string) {
	out := map[string][]operation{}
	for _, op := range ops {
		out[op.path] = append(out[op.path], op)
	}
	paths := make([]string, 0, len(out))
	for path, of := range out {
		sort.Slice(of, func(i, j int) bool { return of[i].method < of[j].method })
		paths = append(paths, path)
	}
	sort.Strings(paths)
	return out, paths
}
