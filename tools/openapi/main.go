// Command openapi writes what internal/apiserver/openapi embeds, from the Go
// types of the Kubernetes API and from what openapi-gen has read out of their
// comments (package definitions, which generate.sh makes and nobody commits):
//
//   - definitions.gz: one line per type, "name TAB v3 schema TAB v2 schema",
//     sorted by name. The two schemas of a type stand beside each other because
//     they are nearly the same text, which gzip sees.
//   - types.txt: one line per type, "name TAB type", the same schemas as
//     structured-merge-diff wants them, without prose: what fields there are,
//     which lists are sets and maps and by what keys, what is atomic.
//
// Names, group-version-kinds and extensions are those that Kubernetes publishes.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sort"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiopenapi "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/schemaconv"
	"k8s.io/kube-openapi/pkg/validation/spec"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"

	"github.com/proa-dev/proa/tools/openapi/definitions"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: openapi OUTPUT-FOLDER")
	}
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(out string) error {
	all := definitions.GetOpenAPIDefinitions(func(string) spec.Ref { return spec.Ref{} })
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)

	types := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, apiextensions.AddToScheme, apiregistration.AddToScheme, metrics.AddToScheme} {
		if err := add(types); err != nil {
			return err
		}
	}
	namer := apiopenapi.NewDefinitionNamer(types)

	v2, err := builder.BuildOpenAPIDefinitionsForResources(&common.Config{
		GetDefinitions:    definitions.GetOpenAPIDefinitions,
		GetDefinitionName: namer.GetDefinitionName,
		Info:              &spec.Info{},
	}, names...)
	if err != nil {
		return fmt.Errorf("v2: %w", err)
	}
	v3, err := builder3.BuildOpenAPIDefinitionsForResources(&common.OpenAPIV3Config{
		GetDefinitions:    definitions.GetOpenAPIDefinitions,
		GetDefinitionName: namer.GetDefinitionName,
		Info:              &spec.Info{},
	}, names...)
	if err != nil {
		return fmt.Errorf("v3: %w", err)
	}
	// Defaults are published in v3 alone: v2 clients stumble over them.
	pruned := handler.PruneDefaults(v2.Definitions)
	if err := writeDefinitions(filepath.Join(out, "definitions.gz"), names, pruned, v3); err != nil {
		return err
	}
	merge, err := schemaconv.ToSchemaFromOpenAPI(v3, false)
	if err != nil {
		return fmt.Errorf("structured-merge-diff: %w", err)
	}
	return writeTypes(filepath.Join(out, "types.txt"), merge)
}

func writeDefinitions(file string, names []string, v2 spec.Definitions, v3 map[string]*spec.Schema) error {
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	for _, name := range names {
		three, err := json.Marshal(v3[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		two, err := json.Marshal(v2[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", name, three, two)
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(file, packed.Bytes(), 0o644)
}

// The JSON of types.txt. A reference is a name, or an inline type.
type (
	ref struct {
		Name   string `json:"n,omitempty"`
		Inline *atom  `json:"i,omitempty"`
		Rel    string `json:"r,omitempty"`
	}
	atom struct {
		Scalar string `json:"s,omitempty"`
		List   *list  `json:"l,omitempty"`
		Map    *fmap  `json:"m,omitempty"`
	}
	list struct {
		Of   ref      `json:"e"`
		Rel  string   `json:"r,omitempty"`
		Keys []string `json:"k,omitempty"`
	}
	fmap struct {
		Fields []field `json:"f,omitempty"`
		Of     *ref    `json:"e,omitempty"`
		Rel    string  `json:"r,omitempty"`
	}
	field struct {
		Name    string `json:"f"`
		Default any    `json:"d,omitempty"`
		ref
	}
)

func writeTypes(file string, s *smd.Schema) error {
	defs := append([]smd.TypeDef(nil), s.Types...)
	sort.Slice(defs, func(i, j int) bool { return defs[i].Name < defs[j].Name })
	var text bytes.Buffer
	for _, d := range defs {
		b, err := json.Marshal(toAtom(d.Atom))
		if err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
		fmt.Fprintf(&text, "%s\t%s\n", d.Name, b)
	}
	return os.WriteFile(file, text.Bytes(), 0o644)
}

func toAtom(a smd.Atom) *atom {
	out := &atom{}
	if a.Scalar != nil {
		out.Scalar = string(*a.Scalar)
	}
	if a.List != nil {
		out.List = &list{Of: toRef(a.List.ElementType), Rel: string(a.List.ElementRelationship), Keys: a.List.Keys}
	}
	if a.Map != nil {
		out.Map = &fmap{Rel: string(a.Map.ElementRelationship)}
		for _, f := range a.Map.Fields {
			out.Map.Fields = append(out.Map.Fields, field{Name: f.Name, Default: f.Default, ref: toRef(f.Type)})
		}
		// they come out of a map: sorted, two runs write the same
		sort.Slice(out.Map.Fields, func(i, j int) bool { return out.Map.Fields[i].Name < out.Map.Fields[j].Name })
		if of := toRef(a.Map.ElementType); of != (ref{}) {
			out.Map.Of = &of
		}
	}
	return out
}

func toRef(t smd.TypeRef) ref {
	var r ref
	if t.NamedType != nil {
		r.Name = *t.NamedType
	} else if t.Inlined != (smd.Atom{}) {
		r.Inline = toAtom(t.Inlined)
	}
	if t.ElementRelationship != nil {
		r.Rel = string(*t.ElementRelationship)
	}
	return r
}
