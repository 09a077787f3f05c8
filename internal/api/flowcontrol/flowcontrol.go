// Package flowcontrol describes FlowSchema and PriorityLevelConfiguration of
// flowcontrol.apiserver.k8s.io/v1.
package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
)

// Kinds of the group.
func Kinds() []*api.Kind { return []*api.Kind{flowSchema(), priorityLevel()} }

func gvk(kind string) schema.GroupVersionKind { return flowcontrolv1.SchemeGroupVersion.WithKind(kind) }

func flowSchema() *api.Kind {
	usual := reset.SpecStatus(func(f *flowcontrolv1.FlowSchema) (*flowcontrolv1.FlowSchemaSpec, *flowcontrolv1.FlowSchemaStatus) {
		return &f.Spec, &f.Status
	})
	return &api.Kind{
		GroupVersionKind: gvk("FlowSchema"),
		Stored:           []api.Shape{api.StoredAlike(gvk("FlowSchema"), "v1beta3")},
		Resource:         "flowschemas",
		Cluster:          true,
		New:              func() api.Object { return &flowcontrolv1.FlowSchema{} },
		NewList:          func() runtime.Object { return &flowcontrolv1.FlowSchemaList{} },
		Default:          api.Of(func(f *flowcontrolv1.FlowSchema) { defaults.Zero(&f.Spec.MatchingPrecedence, 1000) }),
		Reset: func(obj, old api.Object, sub string) {
			if sub == "status" {
				f := obj.(*flowcontrolv1.FlowSchema)
				keepMeta(&f.ObjectMeta, &old.(*flowcontrolv1.FlowSchema).ObjectMeta)
			}
			usual(obj, old, sub)
		},
		Validate: api.Validates(validateFlowSchema),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("PriorityLevel", "string", flowcontrolv1.PriorityLevelConfigurationReference{}.SwaggerDoc()["name"]),
			table.Col("MatchingPrecedence", "string", flowcontrolv1.FlowSchemaSpec{}.SwaggerDoc()["matchingPrecedence"]),
			table.Col("DistinguisherMethod", "string", flowcontrolv1.FlowSchemaSpec{}.SwaggerDoc()["distinguisherMethod"]),
			table.Age(),
			table.Col("MissingPL", "string", "references a broken or non-existent PriorityLevelConfiguration"),
		},
		Row: api.Rows(func(f *flowcontrolv1.FlowSchema) []any {
			method, missing := "<none>", "?"
			if d := f.Spec.DistinguisherMethod; d != nil {
				method = string(d.Type)
			}
			for _, c := range f.Status.Conditions {
				if c.Type == flowcontrolv1.FlowSchemaConditionDangling {
					missing = string(c.Status)
					break
				}
			}
			return []any{f.Name, f.Spec.PriorityLevelConfiguration.Name, int64(f.Spec.MatchingPrecedence), method, table.AgeOf(f), missing}
		}),
		Subresources: []api.Subresource{{Name: "status"}},
	}
}

func priorityLevel() *api.Kind {
	usual := reset.SpecStatus(func(p *flowcontrolv1.PriorityLevelConfiguration) (*flowcontrolv1.PriorityLevelConfigurationSpec, *flowcontrolv1.PriorityLevelConfigurationStatus) {
		return &p.Spec, &p.Status
	})
	return &api.Kind{
		GroupVersionKind: gvk("PriorityLevelConfiguration"),
		Stored:           []api.Shape{api.StoredAlike(gvk("PriorityLevelConfiguration"), "v1beta3")},
		Resource:         "prioritylevelconfigurations",
		Cluster:          true,
		New:              func() api.Object { return &flowcontrolv1.PriorityLevelConfiguration{} },
		NewList:          func() runtime.Object { return &flowcontrolv1.PriorityLevelConfigurationList{} },
		Default:          api.Of(defaultLevel),
		Reset: func(obj, old api.Object, sub string) {
			if sub == "status" {
				p := obj.(*flowcontrolv1.PriorityLevelConfiguration)
				keepMeta(&p.ObjectMeta, &old.(*flowcontrolv1.PriorityLevelConfiguration).ObjectMeta)
			}
			usual(obj, old, sub)
		},
		Validate: api.Validates(validateLevel),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Type", "string", flowcontrolv1.PriorityLevelConfigurationSpec{}.SwaggerDoc()["type"]),
			table.Col("NominalConcurrencyShares", "string", flowcontrolv1.LimitedPriorityLevelConfiguration{}.SwaggerDoc()["nominalConcurrencyShares"]),
			table.Col("Queues", "string", flowcontrolv1.QueuingConfiguration{}.SwaggerDoc()["queues"]),
			table.Col("HandSize", "string", flowcontrolv1.QueuingConfiguration{}.SwaggerDoc()["handSize"]),
			table.Col("QueueLengthLimit", "string", flowcontrolv1.QueuingConfiguration{}.SwaggerDoc()["queueLengthLimit"]),
			table.Age(),
		},
		Row: api.Rows(func(p *flowcontrolv1.PriorityLevelConfiguration) []any {
			const none = "<none>"
			shares, queues, hand, length := any(none), any(none), any(none), any(none)
			if l := p.Spec.Limited; l != nil {
				if l.NominalConcurrencyShares != nil {
					shares = *l.NominalConcurrencyShares
				}
				if q := l.LimitResponse.Queuing; q != nil {
					queues, hand, length = q.Queues, q.HandSize, q.QueueLengthLimit
				}
			}
			return []any{p.Name, string(p.Spec.Type), shares, queues, hand, length, table.AgeOf(p)}
		}),
		Subresources: []api.Subresource{{Name: "status"}},
	}
}

// keepMeta gives a write of the status the metadata as it is.
func keepMeta(meta, old *metav1.ObjectMeta) {
	fields, version := meta.ManagedFields, meta.ResourceVersion
	*meta = *old
	meta.ManagedFields, meta.ResourceVersion = fields, version
}

func defaultLevel(p *flowcontrolv1.PriorityLevelConfiguration) {
	if e := p.Spec.Exempt; e != nil {
		defaults.Ptr(&e.NominalConcurrencyShares, 0)
		defaults.Ptr(&e.LendablePercent, 0)
	}
	if l := p.Spec.Limited; l != nil {
		defaults.Ptr(&l.NominalConcurrencyShares, 30)
		defaults.Ptr(&l.LendablePercent, 0)
		if q := l.LimitResponse.Queuing; q != nil {
			defaults.Zero(&q.HandSize, 8)
			defaults.Zero(&q.Queues, 64)
			defaults.Zero(&q.QueueLengthLimit, 50)
		}
	}
}
