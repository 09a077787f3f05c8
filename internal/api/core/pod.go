package core

import (
	"strconv"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/index"
	"github.com/proa-dev/proa/internal/api/reset"
)

func podKind() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("Pod"),
		Resource:         "pods",
		ShortNames:       []string{"po"},
		Categories:       []string{"all"},
		New:              func() api.Object { return &corev1.Pod{} },
		NewList:          func() runtime.Object { return &corev1.PodList{} },
		Default:          api.Of(defaultPod),
		Reset:            api.Resets(resetPod),
		Validate:         checks(validatePod),
		Warn:             api.Warns(warnPod),
		Columns:          podColumns(),
		Row:              api.Rows(podRow),
		Fields:           api.FieldsOf(podFields),
		Indexes: map[string]func(api.Object) []string{
			"spec.nodeName": api.IndexOf(func(p *corev1.Pod) []string { return []string{p.Spec.NodeName} }),
			index.Owner:     index.OwnerOf,
		},
		Grace: func(obj api.Object, opts *metav1.DeleteOptions) int64 { return podGrace(obj.(*corev1.Pod), opts) },
		Subresources: []api.Subresource{
			{Name: "attach", Kind: gvk("PodAttachOptions"), Verbs: []string{"create", "get"}, Body: func() runtime.Object { return &corev1.PodAttachOptions{} }},
			{Name: "binding", Kind: gvk("Binding"), Verbs: []string{"create"}, Body: func() runtime.Object { return &corev1.Binding{} }},
			{Name: "ephemeralcontainers"},
			{Name: "eviction", Kind: policyv1.SchemeGroupVersion.WithKind("Eviction"), Verbs: []string{"create"}, Body: func() runtime.Object { return &policyv1.Eviction{} }},
			{Name: "exec", Kind: gvk("PodExecOptions"), Verbs: []string{"create", "get"}, Body: func() runtime.Object { return &corev1.PodExecOptions{} }},
			{Name: "log", Verbs: []string{"get"}, Body: func() runtime.Object { return &corev1.PodLogOptions{} }},
			{Name: "portforward", Kind: gvk("PodPortForwardOptions"), Verbs: []string{"create", "get"}, Body: func() runtime.Object { return &corev1.PodPortForwardOptions{} }},
			{Name: "proxy", Kind: gvk("PodProxyOptions"), Verbs: proxyVerbs(), Body: func() runtime.Object { return &corev1.PodProxyOptions{} }},
			{Name: "resize"},
			status(),
		},
	}
}

// tokenRequest is the subresource of service accounts.
func tokenRequest() api.Subresource {
	return api.Subresource{Name: "token", Kind: authv1.SchemeGroupVersion.WithKind("TokenRequest"), Verbs: []string{"create"},
		Body: func() runtime.Object { return &authv1.TokenRequest{} }}
}

func podFields(p *corev1.Pod) fields.Set {
	ip := p.Status.PodIP
	if ip == "" && len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	ips := ""
	for i := range p.Status.PodIPs {
		if i > 0 {
			ips += ","
		}
		ips += p.Status.PodIPs[i].IP
	}
	return fields.Set{
		"spec.nodeName":            p.Spec.NodeName,
		"spec.restartPolicy":       string(p.Spec.RestartPolicy),
		"spec.schedulerName":       p.Spec.SchedulerName,
		"spec.serviceAccountName":  p.Spec.ServiceAccountName,
		"spec.hostNetwork":         strconv.FormatBool(p.Spec.HostNetwork),
		"status.phase":             string(p.Status.Phase),
		"status.podIP":             ip,
		"status.podIPs":            ips,
		"status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}

// podGrace: as long as asked for, or as the pod says; at once if it is on no
// node, or has ended.
func podGrace(p *corev1.Pod, opts *metav1.DeleteOptions) int64 {
	var grace int64
	if opts != nil && opts.GracePeriodSeconds != nil {
		grace = *opts.GracePeriodSeconds
	} else if p.Spec.TerminationGracePeriodSeconds != nil {
		grace = *p.Spec.TerminationGracePeriodSeconds
	}
	if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		return 0
	}
	if grace < 0 {
		return 1
	}
	return grace
}

func resetPod(p, old *corev1.Pod, sub string) {
	if old == nil {
		createPod(p)
		return
	}
	p.Generation = old.Generation
	switch sub {
	case "status":
		p.Spec = old.Spec
		p.DeletionTimestamp = old.DeletionTimestamp
		p.OwnerReferences = old.OwnerReferences
		defaults.Zero(&p.Status.QOSClass, old.Status.QOSClass)
		keepObservedGeneration(p, old)
		return
	case "ephemeralcontainers":
		added := p.Spec.EphemeralContainers
		p.Spec = old.Spec
		p.Spec.EphemeralContainers = added
		metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.ObjectMeta)
	case "resize":
		keepAllButResources(p, old)
	}
	p.Status = old.Status
	dropOff(&p.Spec)
	if reset.Differ(&p.Spec, &old.Spec) {
		p.Generation++
	}
}

func createPod(p *corev1.Pod) {
	p.Generation = 1
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: podQOS(p)}
	dropOff(&p.Spec)
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now(),
			Reason: corev1.PodReasonSchedulingGated, Message: "Scheduling is blocked due to non-empty scheduling gates",
		}}
	}
	mergeLabelKeys(p)
	appArmorFromAnnotations(p)
}

// keepObservedGeneration: a client that does not know the field must not clear
// it, in the status or in a condition.
func keepObservedGeneration(p, old *corev1.Pod) {
	defaults.Zero(&p.Status.ObservedGeneration, old.Status.ObservedGeneration)
	var next map[corev1.PodConditionType]int // how many of a type were seen
	for i := range p.Status.Conditions {
		c := &p.Status.Conditions[i]
		skip := next[c.Type]
		for j := range old.Status.Conditions {
			if old.Status.Conditions[j].Type != c.Type {
				continue
			}
			if skip == 0 {
				defaults.Zero(&c.ObservedGeneration, old.Status.Conditions[j].ObservedGeneration)
				break
			}
			skip--
		}
		if next == nil {
			next = make(map[corev1.PodConditionType]int, len(p.Status.Conditions))
		}
		next[c.Type]++
	}
}

// keepAllButResources undoes what a resize may not change. If containers came,
// went or moved, validation says so.
func keepAllButResources(p, old *corev1.Pod) {
	merge := func(now, old []corev1.Container) ([]corev1.Container, bool) {
		if len(now) != len(old) {
			return nil, false
		}
		out := append([]corev1.Container(nil), old...)
		for i := range now {
			if now[i].Name != old[i].Name {
				return now, true
			}
			out[i].Resources, out[i].ResizePolicy = now[i].Resources, now[i].ResizePolicy
		}
		return out, true
	}
	containers, ok1 := merge(p.Spec.Containers, old.Spec.Containers)
	inits, ok2 := merge(p.Spec.InitContainers, old.Spec.InitContainers)
	if !ok1 || !ok2 {
		return
	}
	resources := p.Spec.Resources
	p.Spec = old.Spec
	p.Spec.Containers, p.Spec.InitContainers, p.Spec.Resources = containers, inits, resources
	metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.ObjectMeta)
}

// mergeLabelKeys makes requirements of matchLabelKeys and mismatchLabelKeys,
// with the values of the pod's own labels (KEP-3633, KEP-3243).
func mergeLabelKeys(p *corev1.Pod) {
	add := func(s *metav1.LabelSelector, keys []string, op metav1.LabelSelectorOperator) {
		for _, k := range keys {
			if v, ok := p.Labels[k]; ok && s != nil {
				s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: k, Operator: op, Values: []string{v}})
			}
		}
	}
	term := func(t *corev1.PodAffinityTerm) {
		add(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
		add(t.LabelSelector, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	}
	terms := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range preferred {
			term(&preferred[i].PodAffinityTerm)
		}
		for i := range required {
			term(&required[i])
		}
	}
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			terms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		}
		if a.PodAntiAffinity != nil {
			terms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		}
	}
	for i := range p.Spec.TopologySpreadConstraints {
		t := &p.Spec.TopologySpreadConstraints[i]
		add(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
	}
}
