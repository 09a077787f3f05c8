package admission

import (
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/cache"
)

// params finds the objects that parameterise policies.
type params struct {
	Catalog *api.Catalog
	Of      func(*api.Kind) cache.Reader
}

// of a binding: what the policy is evaluated with, once for each; a nil object
// for a policy that takes none.
func (p params) of(kind *admissionv1.ParamKind, ref *admissionv1.ParamRef, namespace string) ([]runtime.Object, error) {
	if kind == nil || ref == nil {
		return []runtime.Object{nil}, nil
	}
	k, ok := p.Catalog.Kind(schema.FromAPIVersionAndKind(kind.APIVersion, kind.Kind))
	if !ok {
		return nil, fmt.Errorf("paramKind kind `%v` not known", kind.String())
	}
	switch {
	case k.Cluster && ref.Namespace != "":
		return nil, errors.New("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
	case k.Cluster:
		namespace = ""
	case ref.Namespace != "":
		namespace = ref.Namespace
	case namespace == "":
		return nil, errors.New("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
	}
	found, err := p.find(k, ref, namespace)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 && ref.ParameterNotFoundAction != nil && *ref.ParameterNotFoundAction == admissionv1.DenyAction {
		return nil, errors.New("no params found for policy binding with `Deny` parameterNotFoundAction")
	}
	return found, nil
}

func (p params) find(k api.Served, ref *admissionv1.ParamRef, namespace string) (found []runtime.Object, err error) {
	add := func(i *cache.Item) bool {
		var obj api.Object
		if obj, err = inVersion(i.Object, k); err == nil {
			found = append(found, obj)
		}
		return err == nil
	}
	set := p.Of(k.Kind)
	if ref.Name != "" {
		if i := set.Get(namespace, ref.Name); i != nil {
			add(i)
		}
		return found, err
	}
	if ref.Selector == nil {
		return nil, errors.New("one of name or selector must be provided")
	}
	sel, err := metav1.LabelSelectorAsSelector(ref.Selector)
	if err != nil {
		return nil, err
	}
	set.Snapshot().Ascend(namespace, "", "", func(i *cache.Item) bool {
		return !sel.Matches(labels.Set(i.Object.GetLabels())) || add(i)
	})
	return found, err
}
