// Package storage describes the kinds of storage.k8s.io/v1: StorageClass,
// VolumeAttributesClass, VolumeAttachment and what CSI drivers say of themselves.
package storage

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/node"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{csiDriver(), csiNode(), capacity(), class(), attachment(), attributesClass()}
}

func gvk(kind string) schema.GroupVersionKind { return storagev1.SchemeGroupVersion.WithKind(kind) }

func class() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("StorageClass"),
		Resource:         "storageclasses",
		ShortNames:       []string{"sc"},
		Cluster:          true,
		New:              func() api.Object { return &storagev1.StorageClass{} },
		NewList:          func() runtime.Object { return &storagev1.StorageClassList{} },
		Default: api.Of(func(c *storagev1.StorageClass) {
			defaults.Ptr(&c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
			defaults.Ptr(&c.VolumeBindingMode, storagev1.VolumeBindingImmediate)
		}),
		Validate: api.Validates(validateClass),
		Warn:     api.Warns(warnClass),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Provisioner", "string", storagev1.StorageClass{}.SwaggerDoc()["provisioner"]),
			table.Col("ReclaimPolicy", "string", storagev1.StorageClass{}.SwaggerDoc()["reclaimPolicy"]),
			table.Col("VolumeBindingMode", "string", storagev1.StorageClass{}.SwaggerDoc()["volumeBindingMode"]),
			table.Col("AllowVolumeExpansion", "string", storagev1.StorageClass{}.SwaggerDoc()["allowVolumeExpansion"]),
			table.Age(),
		},
		Row: api.Rows(func(c *storagev1.StorageClass) []any {
			name := c.Name
			if c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" ||
				c.Annotations["storageclass.beta.kubernetes.io/is-default-class"] == "true" {
				name += " (default)"
			}
			return []any{name, c.Provisioner, string(or(c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)),
				string(or(c.VolumeBindingMode, storagev1.VolumeBindingImmediate)), or(c.AllowVolumeExpansion, false), table.AgeOf(c)}
		}),
	}
}

// or is the value of an optional field, or another.
func or[T any](v *T, other T) T {
	if v == nil {
		return other
	}
	return *v
}

func validateClass(c, old *storagev1.StorageClass, _ string) field.ErrorList {
	var e validate.Errs
	provisioner(&e, c.Provisioner, validate.Root("provisioner"))
	parameters(&e, c.Parameters, validate.Root("parameters"))
	if r := c.ReclaimPolicy; r != nil && *r != "" {
		validate.OneOf(&e, validate.Root("reclaimPolicy"), *r, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)
	}
	if m := c.VolumeBindingMode; m == nil {
		e.Required(validate.Root("volumeBindingMode"), "")
	} else {
		validate.OneOf(&e, validate.Root("volumeBindingMode"), *m, storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)
	}
	topologies(&e, c.AllowedTopologies, validate.Root("allowedTopologies"))
	if old != nil {
		e.Immutable(validate.Root("parameters"), c.Parameters, old.Parameters)
		e.Immutable(validate.Root("provisioner"), c.Provisioner, old.Provisioner)
		e.Immutable(validate.Root("reclaimPolicy"), c.ReclaimPolicy, old.ReclaimPolicy)
		e.Immutable(validate.Root("volumeBindingMode"), c.VolumeBindingMode, old.VolumeBindingMode)
	}
	return e.List()
}

func provisioner(e *validate.Errs, name string, p *validate.Path) {
	if name == "" {
		e.Required(p, "")
		return
	}
	lower := strings.ToLower(name)
	e.Invalids(p, lower, validate.QualifiedName(lower))
}

func parameters(e *validate.Errs, m map[string]string, p *validate.Path) {
	const maxSize, maxCount = 256 << 10, 512
	if len(m) > maxCount {
		e.TooLong(p, maxCount)
		return
	}
	size := 0
	for k, v := range m {
		if k == "" {
			e.Invalid(p, k, "field can not be empty.")
		}
		size += len(k) + len(v)
	}
	if size > maxSize {
		e.TooLong(p, maxSize)
	}
}

func topologies(e *validate.Errs, terms []corev1.TopologySelectorTerm, p *validate.Path) {
	seen := []map[string]sets.Set[string]{{}} // an empty term is none
	for i, term := range terms {
		at := p.Index(i)
		values := topology(e, term, at)
		for _, other := range seen {
			if !reset.Differ(values, other) {
				e.Duplicate(at.Child("matchLabelExpressions"), "")
			}
		}
		seen = append(seen, values)
	}
}

func topology(e *validate.Errs, term corev1.TopologySelectorTerm, p *validate.Path) map[string]sets.Set[string] {
	all := map[string]sets.Set[string]{}
	for i, r := range term.MatchLabelExpressions {
		at := p.Child("matchLabelExpressions").Index(i)
		values := sets.New[string]()
		if len(r.Values) == 0 {
			e.Required(at.Child("values"), "")
		}
		for j, v := range r.Values {
			if values.Has(v) {
				e.Duplicate(at.Child("values").Index(j), v)
			}
			values.Insert(v)
		}
		validate.LabelKey(e, r.Key, at.Child("key"))
		if _, twice := all[r.Key]; twice {
			e.Duplicate(at.Child("key"), r.Key)
		}
		all[r.Key] = values
	}
	return all
}

func warnClass(c, _ *storagev1.StorageClass) []string {
	var warnings []string
	for i, term := range c.AllowedTopologies {
		for j, r := range term.MatchLabelExpressions {
			if why, ok := node.DeprecatedLabel(r.Key); ok {
				warnings = append(warnings, fmt.Sprintf("allowedTopologies[%d].matchLabelExpressions[%d].key: %s", i, j, why))
			}
		}
	}
	return warnings
}

func attributesClass() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("VolumeAttributesClass"),
		Stored:           []api.Shape{api.StoredAlike(gvk("VolumeAttributesClass"), "v1beta1")},
		Resource:         "volumeattributesclasses",
		ShortNames:       []string{"vac"},
		Cluster:          true,
		New:              func() api.Object { return &storagev1.VolumeAttributesClass{} },
		NewList:          func() runtime.Object { return &storagev1.VolumeAttributesClassList{} },
		Validate: api.Validates(func(c, old *storagev1.VolumeAttributesClass, _ string) field.ErrorList {
			var e validate.Errs
			if old != nil && c.DriverName != old.DriverName {
				e.Forbidden(validate.Root("driverName"), "updates to driverName are forbidden.")
			}
			if old != nil && reset.Differ(c.Parameters, old.Parameters) {
				e.Forbidden(validate.Root("parameters"), "updates to parameters are forbidden.")
			}
			provisioner(&e, c.DriverName, validate.Root("driverName"))
			parameters(&e, c.Parameters, validate.Root("parameters"))
			if len(c.Parameters) == 0 {
				e.Required(validate.Root("parameters"), "must contain at least one key/value pair")
			}
			return e.List()
		}),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("DriverName", "string", storagev1.VolumeAttributesClass{}.SwaggerDoc()["driverName"]),
			table.Age(),
		},
		Row: api.Rows(func(c *storagev1.VolumeAttributesClass) []any { return []any{c.Name, c.DriverName, table.AgeOf(c)} }),
	}
}
