// Package scheduling describes PriorityClass of scheduling.k8s.io/v1.
package scheduling

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

const (
	systemPrefix = "system-"
	// HighestUser is the highest value a class that is not the system's may have.
	HighestUser = int32(1_000_000_000)
)

// System are the two classes that every cluster has.
func System() []*schedulingv1.PriorityClass {
	policy := corev1.PreemptLowerPriority
	return []*schedulingv1.PriorityClass{{
		ObjectMeta:       metav1.ObjectMeta{Name: "system-node-critical"},
		Value:            2*HighestUser + 1000,
		Description:      "Used for system critical pods that must not be moved from their current node.",
		PreemptionPolicy: &policy,
	}, {
		ObjectMeta:       metav1.ObjectMeta{Name: "system-cluster-critical"},
		Value:            2 * HighestUser,
		Description:      "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
		PreemptionPolicy: &policy,
	}}
}

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{{
		GroupVersionKind: schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"),
		Resource:         "priorityclasses",
		ShortNames:       []string{"pc"},
		Cluster:          true,
		New:              func() api.Object { return &schedulingv1.PriorityClass{} },
		NewList:          func() runtime.Object { return &schedulingv1.PriorityClassList{} },
		Default: api.Of(func(c *schedulingv1.PriorityClass) {
			defaults.Ptr(&c.PreemptionPolicy, corev1.PreemptLowerPriority)
		}),
		Reset: api.Resets(func(c, old *schedulingv1.PriorityClass, _ string) {
			if old == nil {
				c.Generation = 1
			}
		}),
		Validate: api.Validates(validateClass),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Value", "integer", schedulingv1.PriorityClass{}.SwaggerDoc()["value"]),
			table.Col("Global-Default", "boolean", schedulingv1.PriorityClass{}.SwaggerDoc()["globalDefault"]),
			table.Age(),
			table.Col("PreemptionPolicy", "string", schedulingv1.PriorityClass{}.SwaggerDoc()["preemptionPolicy"]),
		},
		Row: api.Rows(func(c *schedulingv1.PriorityClass) []any {
			policy := ""
			if c.PreemptionPolicy != nil {
				policy = string(*c.PreemptionPolicy)
			}
			return []any{c.Name, int64(c.Value), c.GlobalDefault, table.AgeOf(c), policy}
		}),
	}}
}

func validateClass(c, old *schedulingv1.PriorityClass, _ string) field.ErrorList {
	var e validate.Errs
	if old != nil {
		if c.Value != old.Value {
			e.Forbidden(validate.Root("value"), "may not be changed in an update.")
		}
		e.Immutable(validate.Root("preemptionPolicy"), c.PreemptionPolicy, old.PreemptionPolicy)
		return e.List()
	}
	if strings.HasPrefix(c.Name, systemPrefix) {
		if why := notSystem(c); why != "" {
			e.Forbidden(validate.Root("metadata").Child("name"),
				"priority class names with '"+systemPrefix+"' prefix are reserved for system use only. error: "+why)
		}
	} else if c.Value > HighestUser {
		e.Forbidden(validate.Root("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %v", HighestUser))
	}
	if c.PreemptionPolicy != nil {
		validate.RequiredOneOf(&e, validate.Root("preemptionPolicy"), *c.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	return e.List()
}

// notSystem says why a class is none of the system's, "" = it is one.
func notSystem(c *schedulingv1.PriorityClass) string {
	for _, s := range System() {
		if s.Name != c.Name {
			continue
		}
		if s.Value != c.Value {
			return fmt.Sprintf("value of %v PriorityClass must be %v", s.Name, s.Value)
		}
		if s.GlobalDefault != c.GlobalDefault {
			return fmt.Sprintf("globalDefault of %v PriorityClass must be %v", s.Name, s.GlobalDefault)
		}
		return ""
	}
	return fmt.Sprintf("%v is not a known system priority class", c.Name)
}
