// Package node describes RuntimeClass of node.k8s.io/v1.
package node

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{{
		GroupVersionKind: nodev1.SchemeGroupVersion.WithKind("RuntimeClass"),
		Resource:         "runtimeclasses",
		Cluster:          true,
		New:              func() api.Object { return &nodev1.RuntimeClass{} },
		NewList:          func() runtime.Object { return &nodev1.RuntimeClassList{} },
		CreateOnUpdate:   true,
		StrictUpdate:     true,
		Validate:         api.Validates(validateClass),
		Warn:             api.Warns(warnClass),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Handler", "string", metav1.ObjectMeta{}.SwaggerDoc()["handler"]),
			table.Age(),
		},
		Row: api.Rows(func(c *nodev1.RuntimeClass) []any { return []any{c.Name, c.Handler, table.AgeOf(c)} }),
	}}
}

func validateClass(c, old *nodev1.RuntimeClass, _ string) field.ErrorList {
	var e validate.Errs
	p := validate.Root("handler")
	if old != nil {
		e.Immutable(p, c.Handler, old.Handler)
		return e.List()
	}
	if c.Handler == "" {
		e.Required(p, "")
	} else {
		e.Invalids(p, c.Handler, validate.Label(c.Handler))
	}
	if c.Overhead != nil {
		overhead(&e, c.Overhead.PodFixed, validate.Root("overhead").Child("limits"))
	}
	if s := c.Scheduling; s != nil {
		validate.Labels(&e, s.NodeSelector, validate.Root("scheduling").Child("nodeSelector"))
		tolerations(&e, s.Tolerations, validate.Root("scheduling").Child("tolerations"))
	}
	return e.List()
}

func overhead(e *validate.Errs, list corev1.ResourceList, p *validate.Path) {
	for name, q := range list {
		at := p.Key(string(name))
		e.Invalids(at, name, validate.QualifiedName(string(name)))
		if q.Sign() < 0 {
			e.Invalid(at, q.String(), validate.NotNegative)
		}
	}
}

func tolerations(e *validate.Errs, list []corev1.Toleration, p *validate.Path) {
	seen := map[corev1.Toleration]bool{}
	for i, t := range list {
		at := p.Index(i)
		if t.Key != "" {
			validate.LabelKey(e, t.Key, at.Child("key"))
		} else if t.Operator != corev1.TolerationOpExists {
			e.Invalid(at.Child("operator"), t.Operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\"")
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			e.Invalid(at.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			e.Invalids(at.Child("operator"), t.Value, validate.LabelValue(t.Value))
		case corev1.TolerationOpExists:
			if t.Value != "" {
				e.Invalid(at.Child("operator"), t, "value must be empty when `operator` is 'Exists'")
			}
		default:
			validate.NotSupported(e, at.Child("operator"), t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists)
		}
		if t.Effect != "" {
			validate.OneOf(e, at.Child("effect"), t.Effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
		}
		key := corev1.Toleration{Key: t.Key, Operator: t.Operator, Value: t.Value, Effect: t.Effect}
		if seen[key] {
			e.Duplicate(at, t)
		}
		seen[key] = true
	}
}

func warnClass(c, _ *nodev1.RuntimeClass) []string {
	if c.Scheduling == nil {
		return nil
	}
	var warnings []string
	for _, key := range slices.Sorted(maps.Keys(c.Scheduling.NodeSelector)) {
		if why, ok := DeprecatedLabel(key); ok {
			warnings = append(warnings, "scheduling.nodeSelector: "+why)
		}
	}
	return warnings
}

// DeprecatedLabel says what to use in place of a label of nodes that is not used
// any more.
func DeprecatedLabel(key string) (string, bool) {
	why, ok := map[string]string{
		"beta.kubernetes.io/arch":                       `deprecated since v1.14; use "kubernetes.io/arch" instead`,
		"beta.kubernetes.io/os":                         `deprecated since v1.14; use "kubernetes.io/os" instead`,
		"failure-domain.beta.kubernetes.io/region":      `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
		"failure-domain.beta.kubernetes.io/zone":        `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
		"beta.kubernetes.io/instance-type":              `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
		"app.kubernetes.io/created-by":                  `deprecated since v1.9`,
		"scheduler.alpha.kubernetes.io/preferAvoidPods": `deprecated since v1.22; use Taints and Tolerations instead`,
		"node-role.kubernetes.io/master":                `use "node-role.kubernetes.io/control-plane" instead`,
	}[key]
	return why, ok
}
