package extension

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"sync"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metatable "k8s.io/apimachinery/pkg/api/meta/table"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/jsonpath"

	"github.com/proa-dev/proa/internal/api"
)

// columns of a table and what fills them.
func columns(of []apiextensionsv1.CustomResourceColumnDefinition) ([]metav1.TableColumnDefinition, func(api.Object) []any) {
	if len(of) == 0 {
		of = []apiextensionsv1.CustomResourceColumnDefinition{{
			Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"],
		}}
	}
	head := []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}}
	var paths []*jsonpath.JSONPath
	for _, c := range of {
		p := jsonpath.New(c.Name).AllowMissingKeys(true)
		if p.Parse("{"+c.JSONPath+"}") != nil {
			break
		}
		about := c.Description
		if about == "" {
			about = fmt.Sprintf("Custom resource definition column (in JSONPath format): %s", c.JSONPath)
		}
		paths = append(paths, p)
		head = append(head, metav1.TableColumnDefinition{Name: c.Name, Type: c.Type, Format: c.Format, Description: about, Priority: c.Priority})
	}
	var mu sync.Mutex // a JSONPath keeps state while it looks
	return head, func(obj api.Object) []any {
		mu.Lock()
		defer mu.Unlock()
		row := []any{obj.GetName()}
		for i, p := range paths {
			row = append(row, cell(p, head[i+1].Type, obj.(*unstructured.Unstructured)))
		}
		return row
	}
}

func cell(p *jsonpath.JSONPath, kind string, u *unstructured.Unstructured) any {
	found, err := p.FindResults(u.Object)
	if err != nil || len(found) == 0 || len(found[0]) == 0 {
		return nil
	}
	value := found[0][0].Interface()
	if kind == "string" {
		var b bytes.Buffer
		if p.PrintResults(&b, []reflect.Value{reflect.ValueOf(value)}) != nil {
			return nil
		}
		return b.String()
	}
	switch v := value.(type) {
	case int64:
		switch kind {
		case "integer":
			return v
		case "number":
			return float64(v)
		}
	case float64:
		switch kind {
		case "integer":
			return int64(v)
		case "number":
			return v
		}
	case bool:
		if kind == "boolean" {
			return v
		}
	case string:
		if kind == "date" {
			var t metav1.Time
			if t.UnmarshalQueryParameter(v) != nil {
				return "<invalid>"
			}
			return metatable.ConvertToHumanReadableDateType(t)
		}
	}
	return nil
}

// fields that objects can be selected by in a version, besides the usual; nil when
// there are none.
func (c *custom) fields(v *version) func(api.Object) fields.Set {
	of := v.spec.SelectableFields
	if len(of) == 0 {
		return nil
	}
	paths := make([][]string, len(of))
	for i, f := range of {
		paths[i] = steps(f.JSONPath)
	}
	return func(obj api.Object) fields.Set {
		u, _ := obj.(*unstructured.Unstructured)
		set := fields.Set{}
		for i, f := range of {
			set[fieldName(f)] = valueAt(u, paths[i])
		}
		return set
	}
}

// fieldName is how selectors call a field.
func fieldName(f apiextensionsv1.SelectableField) string { return strings.TrimPrefix(f.JSONPath, ".") }

func valueAt(u *unstructured.Unstructured, path []string) string {
	if v, ok, err := unstructured.NestedFieldNoCopy(u.Object, path...); ok && err == nil && v != nil {
		return fmt.Sprint(v)
	}
	return ""
}

// indexes of the selectable fields of the version that is stored. There are none
// where a webhook would have to be asked for what is kept in older versions.
func (c *custom) indexes(storage *version) map[string]func(api.Object) []string {
	all := map[string]func(api.Object) []string{}
	if c.webhook != nil {
		return all
	}
	for _, f := range storage.spec.SelectableFields {
		path := steps(f.JSONPath)
		all[fieldName(f)] = func(obj api.Object) []string {
			if u, err := c.in(obj.(*unstructured.Unstructured), storage); err == nil {
				return []string{valueAt(u, path)}
			}
			return []string{""}
		}
	}
	return all
}

// subresources of a version.
func (c *custom) subresources(v *version) (subs []api.Subresource) {
	of := v.spec.Subresources
	if of == nil {
		return nil
	}
	if of.Status != nil {
		subs = append(subs, api.Subresource{Name: "status"})
	}
	if s := of.Scale; s != nil {
		subs = append(subs, api.Subresource{
			Name: "scale",
			Kind: autoscalingv1.SchemeGroupVersion.WithKind("Scale"),
			Body: func() runtime.Object { return &autoscalingv1.Scale{} },
			Get: func(obj api.Object) (runtime.Object, error) {
				u, err := c.in(obj.(*unstructured.Unstructured), v)
				if err != nil {
					return nil, err
				}
				return getScale(u, s)
			},
			Set: func(obj api.Object, body runtime.Object) error {
				n := int64(body.(*autoscalingv1.Scale).Spec.Replicas)
				return unstructured.SetNestedField(obj.(*unstructured.Unstructured).Object, n, steps(s.SpecReplicasPath)...)
			},
		})
	}
	return subs
}

func getScale(u *unstructured.Unstructured, s *apiextensionsv1.CustomResourceSubresourceScale) (runtime.Object, error) {
	number := func(path string) (int32, error) {
		n, _, err := unstructured.NestedInt64(u.Object, steps(path)...)
		return int32(n), err
	}
	spec, err := number(s.SpecReplicasPath)
	if err != nil {
		return nil, err
	}
	status, err := number(s.StatusReplicasPath)
	if err != nil {
		return nil, err
	}
	out := &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: u.GetName(), Namespace: u.GetNamespace(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion(), CreationTimestamp: u.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: spec},
		Status: autoscalingv1.ScaleStatus{Replicas: status},
	}
	if s.LabelSelectorPath != nil {
		out.Status.Selector, _, err = unstructured.NestedString(u.Object, steps(*s.LabelSelectorPath)...)
	}
	return out, err
}
