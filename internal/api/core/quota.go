package core

import (
	"bytes"
	"fmt"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func resourceQuotaKind() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("ResourceQuota"),
		Resource:         "resourcequotas",
		ShortNames:       []string{"quota"},
		New:              func() api.Object { return &corev1.ResourceQuota{} },
		NewList:          func() runtime.Object { return &corev1.ResourceQuotaList{} },
		Default: api.Of(func(q *corev1.ResourceQuota) {
			roundUp(q.Spec.Hard)
			roundUp(q.Status.Hard)
			roundUp(q.Status.Used)
		}),
		Reset: resetStatus(func(q *corev1.ResourceQuota) (*corev1.ResourceQuotaSpec, *corev1.ResourceQuotaStatus) {
			return &q.Spec, &q.Status
		},
			func(q *corev1.ResourceQuota) { q.Status = corev1.ResourceQuotaStatus{} }),
		Validate: checks(validateResourceQuota),
		Warn:     api.Warns(warnResourceQuota),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Request", "string", "Request represents a minimum amount of cpu/memory that a container may consume."),
			table.Col("Limit", "string", "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node."),
			table.Age(),
		},
		Row:          api.Rows(resourceQuotaRow),
		Subresources: []api.Subresource{status()},
	}
}

func validateResourceQuota(e *validate.Errs, q, old *corev1.ResourceQuota, sub string) {
	list := func(l corev1.ResourceList, p *validate.Path) {
		for name, v := range l {
			at := p.Key(string(name))
			resourceName(e, name, at)
			if !strings.Contains(string(name), "/") && !isQuotaResource(name) {
				e.Invalid(at, name, "must be a standard resource for quota")
			}
			resourceQuantity(e, name, v, at)
		}
	}
	if sub == "status" || old == nil {
		list(q.Status.Hard, validate.Root("status").Child("hard"))
		list(q.Status.Used, validate.Root("status").Child("used"))
	}
	if sub == "status" {
		return
	}
	spec := validate.Root("spec")
	list(q.Spec.Hard, spec.Child("hard"))
	quotaScopes(e, &q.Spec, spec)
	if old != nil {
		had, has := map[corev1.ResourceQuotaScope]bool{}, map[corev1.ResourceQuotaScope]bool{}
		for _, s := range old.Spec.Scopes {
			had[s] = true
		}
		same := true
		for _, s := range q.Spec.Scopes {
			has[s] = true
			same = same && had[s]
		}
		if !same || len(has) != len(had) {
			e.Invalid(spec.Child("scopes"), q.Spec.Scopes, validate.IsImmutable)
		}
	}
}

func quotaScopes(e *validate.Errs, s *corev1.ResourceQuotaSpec, p *validate.Path) {
	at := p.Child("scopes")
	found := map[corev1.ResourceQuotaScope]bool{}
	for _, scope := range s.Scopes {
		if !isQuotaScope(scope) {
			e.Invalid(at, s.Scopes, "unsupported scope")
		}
		for name := range s.Hard {
			if isQuotaResource(name) && !scopeFits(scope, name) {
				e.Invalid(at, s.Scopes, "unsupported scope applied to resource")
			}
		}
		found[scope] = true
	}
	conflicts := func(p *validate.Path) {
		if found[corev1.ResourceQuotaScopeBestEffort] && found[corev1.ResourceQuotaScopeNotBestEffort] {
			e.Invalid(p, s.Scopes, "conflicting scopes")
		}
		if found[corev1.ResourceQuotaScopeTerminating] && found[corev1.ResourceQuotaScopeNotTerminating] {
			e.Invalid(p, s.Scopes, "conflicting scopes")
		}
	}
	conflicts(at)
	if s.ScopeSelector == nil {
		return
	}
	at = p.Child("scopeSelector").Child("matchExpressions")
	clear(found)
	for _, r := range s.ScopeSelector.MatchExpressions {
		if !isQuotaScope(r.ScopeName) {
			e.Invalid(at.Child("scopeName"), r.ScopeName, "unsupported scope")
		}
		for name := range s.Hard {
			if isQuotaResource(name) && !scopeFits(r.ScopeName, name) {
				e.Invalid(at, s.ScopeSelector, "unsupported scope applied to resource")
			}
		}
		switch r.ScopeName {
		case corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
			if r.Operator != corev1.ScopeSelectorOpExists {
				e.Invalid(at.Child("operator"), r.Operator, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity")
			}
		}
		switch r.Operator {
		case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
			if len(r.Values) == 0 {
				e.Required(at.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector")
			}
		case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
			if len(r.Values) != 0 {
				e.Invalid(at.Child("values"), r.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector")
			}
		default:
			e.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator")
		}
		found[r.ScopeName] = true
	}
	conflicts(at)
}

func isQuotaScope(s corev1.ResourceQuotaScope) bool {
	switch s {
	case corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort,
		corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeVolumeAttributesClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return true
	}
	return false
}

// scopeFits: a scope is of pods or of claims, and so must be what is counted.
func scopeFits(s corev1.ResourceQuotaScope, name corev1.ResourceName) bool {
	pods := name == corev1.ResourcePods
	switch s {
	case corev1.ResourceQuotaScopeBestEffort:
		return pods
	case corev1.ResourceQuotaScopeVolumeAttributesClass:
		return name == corev1.ResourcePersistentVolumeClaims || name == corev1.ResourceRequestsStorage
	case corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeNotBestEffort,
		corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		switch name {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory:
			return true
		}
		return pods
	}
	return true
}

func warnResourceQuota(q, old *corev1.ResourceQuota) []string {
	if old != nil {
		return nil
	}
	w := warner{}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceStorage, corev1.ResourceEphemeralStorage} {
		asked, limited := "requests."+name, "limits."+name
		ask, ok := q.Spec.Hard[asked]
		if !ok && (name == corev1.ResourceCPU || name == corev1.ResourceMemory) {
			if ask, ok = q.Spec.Hard[name]; ok {
				asked = name
			}
		}
		if limit, has := q.Spec.Hard[limited]; ok && has && ask.Cmp(limit) > 0 {
			w.addf("ResourceQuota %s (%s) should be less than %s (%s)", asked, ask.String(), limited, limit.String())
		}
	}
	return w.list
}

func resourceQuotaRow(q *corev1.ResourceQuota) []any {
	names := make([]string, 0, len(q.Status.Hard))
	for name := range q.Status.Hard {
		names = append(names, string(name))
	}
	sort.Strings(names)
	var asks, limits bytes.Buffer
	for _, name := range names {
		w := &asks
		if strings.HasPrefix(name, "limits.") {
			w = &limits
		}
		used, hard := q.Status.Used[corev1.ResourceName(name)], q.Status.Hard[corev1.ResourceName(name)]
		fmt.Fprintf(w, "%s: %s/%s, ", name, used.String(), hard.String())
	}
	return []any{q.Name, strings.TrimSuffix(asks.String(), ", "), strings.TrimSuffix(limits.String(), ", "), table.AgeOf(q)}
}

func limitRangeKind() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("LimitRange"),
		Resource:         "limitranges",
		ShortNames:       []string{"limits"},
		New:              func() api.Object { return &corev1.LimitRange{} },
		NewList:          func() runtime.Object { return &corev1.LimitRangeList{} },
		Default:          api.Of(defaultLimitRange),
		Reset: api.Resets(func(l, old *corev1.LimitRange, _ string) {
			if old == nil && l.Name == "" && l.GenerateName == "" {
				l.Name = string(uuid.NewUUID())
			}
		}),
		Validate:       checks(validateLimitRange),
		CreateOnUpdate: true,
	}
}

// A container's default limit is the most it may have; what it requests is by
// default its limit, or else the least.
func defaultLimitRange(l *corev1.LimitRange) {
	for i := range l.Spec.Limits {
		item := &l.Spec.Limits[i]
		if item.Type == corev1.LimitTypeContainer {
			if item.Default == nil {
				item.Default = corev1.ResourceList{}
			}
			if item.DefaultRequest == nil {
				item.DefaultRequest = corev1.ResourceList{}
			}
			for name, q := range item.Max {
				setIfAbsent(&item.Default, name, q)
			}
			for name, q := range item.Default {
				setIfAbsent(&item.DefaultRequest, name, q)
			}
			for name, q := range item.Min {
				setIfAbsent(&item.DefaultRequest, name, q)
			}
		}
		for _, list := range []corev1.ResourceList{item.Max, item.Min, item.Default, item.DefaultRequest, item.MaxLimitRequestRatio} {
			roundUp(list)
		}
	}
}

func validateLimitRange(e *validate.Errs, l, _ *corev1.LimitRange, _ string) {
	var types seen[corev1.LimitType]
	for i := range l.Spec.Limits {
		item, at := &l.Spec.Limits[i], validate.Root("spec").Child("limits").Index(i)
		if why := validate.QualifiedName(string(item.Type)); why != nil {
			e.Invalids(at.Child("type"), item.Type, why)
		} else if !strings.Contains(string(item.Type), "/") && item.Type != corev1.LimitTypePod && item.Type != corev1.LimitTypeContainer && item.Type != corev1.LimitTypePersistentVolumeClaim {
			e.Invalid(at.Child("type"), item.Type, "must be a standard limit type or fully qualified")
		}
		if !types.add(item.Type) {
			e.Duplicate(at.Child("type"), item.Type)
		}
		limitNames(e, item, at)
		if item.Type == corev1.LimitTypePersistentVolumeClaim {
			_, least := item.Min[corev1.ResourceStorage]
			_, most := item.Max[corev1.ResourceStorage]
			if !least && !most {
				e.Required(at.Child("limits"), "either minimum or maximum storage value is required, but neither was provided")
			}
		}
		names := map[corev1.ResourceName]bool{}
		for _, list := range []corev1.ResourceList{item.Max, item.Min, item.Default, item.DefaultRequest, item.MaxLimitRequestRatio} {
			for name := range list {
				names[name] = true
			}
		}
		for name := range names {
			limitOrder(e, item, name, at)
		}
	}
}

func limitNames(e *validate.Errs, item *corev1.LimitRangeItem, p *validate.Path) {
	for _, l := range []struct {
		name string
		list corev1.ResourceList
	}{{"max", item.Max}, {"min", item.Min}, {"default", item.Default}, {"defaultRequest", item.DefaultRequest}, {"maxLimitRequestRatio", item.MaxLimitRequestRatio}} {
		if item.Type == corev1.LimitTypePod && strings.HasPrefix(l.name, "default") {
			if len(l.list) > 0 {
				e.Forbidden(p.Child(l.name), "may not be specified when `type` is 'Pod'")
			}
			continue
		}
		for name := range l.list {
			if item.Type == corev1.LimitTypePod || item.Type == corev1.LimitTypeContainer {
				containerResourceName(e, name, p.Child(l.name).Key(string(name)))
			} else {
				resourceName(e, name, p.Child(l.name).Key(string(name)))
			}
		}
	}
}

// limitOrder: min ≤ default request ≤ default ≤ max.
func limitOrder(e *validate.Errs, item *corev1.LimitRangeItem, name corev1.ResourceName, p *validate.Path) {
	least, hasMin := item.Min[name]
	most, hasMax := item.Max[name]
	def, hasDef := item.Default[name]
	ask, hasAsk := item.DefaultRequest[name]
	ratio, hasRatio := item.MaxLimitRequestRatio[name]
	if item.Type == corev1.LimitTypePod {
		hasDef, hasAsk = false, false
	}
	order := func(both bool, low, high resource.Quantity, field string, value resource.Quantity, format string) {
		if both && low.Cmp(high) > 0 {
			e.Invalid(p.Child(field).Key(string(name)), value, fmt.Sprintf(format, low.String(), high.String()))
		}
	}
	order(hasMin && hasMax, least, most, "min", least, "min value %s is greater than max value %s")
	order(hasAsk && hasMin, least, ask, "defaultRequest", ask, "min value %s is greater than default request value %s")
	order(hasAsk && hasMax, ask, most, "defaultRequest", ask, "default request value %s is greater than max value %s")
	order(hasAsk && hasDef, ask, def, "defaultRequest", ask, "default request value %s is greater than default limit value %s")
	order(hasDef && hasMin, least, def, "default", least, "min value %s is greater than default value %s")
	order(hasDef && hasMax, def, most, "default", most, "default value %s is greater than max value %s")
	at := p.Child("maxLimitRequestRatio").Key(string(name))
	if hasRatio && ratio.Cmp(*resource.NewQuantity(1, resource.DecimalSI)) < 0 {
		e.Invalid(at, ratio, fmt.Sprintf("ratio %s is less than 1", ratio.String()))
	}
	if hasRatio && hasMin && hasMax {
		r, low, high := float64(ratio.Value()), least.Value(), most.Value()
		if ratio.Value() < resource.MaxMilliValue && low < resource.MaxMilliValue && high < resource.MaxMilliValue {
			r, low, high = float64(ratio.MilliValue())/1000, least.MilliValue(), most.MilliValue()
		}
		if limit := float64(high) / float64(low); r > limit {
			e.Invalid(at, ratio, fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), limit))
		}
	}
	if !overcommits(name) && hasDef && hasAsk && def.Cmp(ask) != 0 {
		e.Invalid(p.Child("defaultRequest").Key(string(name)), ask, fmt.Sprintf("default value %s must equal to defaultRequest value %s in %s", def.String(), ask.String(), name))
	}
}
