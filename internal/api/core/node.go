package core

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func nodeKind() *api.Kind {
	info, status := corev1.NodeSystemInfo{}.SwaggerDoc(), corev1.NodeStatus{}.SwaggerDoc()
	return &api.Kind{
		GroupVersionKind: gvk("Node"),
		Resource:         "nodes",
		ShortNames:       []string{"no"},
		Cluster:          true,
		Path:             "minions",
		New:              func() api.Object { return &corev1.Node{} },
		NewList:          func() runtime.Object { return &corev1.NodeList{} },
		Default:          api.Of(defaultNode),
		Reset:            api.Resets(resetNode),
		Validate:         checks(validateNode),
		Warn:             api.Warns(warnNode),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Status", "string", "The status of the node"),
			table.Col("Roles", "string", "The roles of the node"),
			table.Age(),
			table.Col("Version", "string", info["kubeletVersion"]),
			table.Wide("Internal-IP", "string", status["addresses"]),
			table.Wide("External-IP", "string", status["addresses"]),
			table.Wide("OS-Image", "string", info["osImage"]),
			table.Wide("Kernel-Version", "string", info["kernelVersion"]),
			table.Wide("Container-Runtime", "string", info["containerRuntimeVersion"]),
		},
		Row: api.Rows(nodeRow),
		Fields: api.FieldsOf(func(n *corev1.Node) fields.Set {
			return fields.Set{"spec.unschedulable": strconv.FormatBool(n.Spec.Unschedulable)}
		}),
		Subresources: []api.Subresource{
			{Name: "proxy", Kind: gvk("NodeProxyOptions"), Verbs: proxyVerbs(), Body: func() runtime.Object { return &corev1.NodeProxyOptions{} }},
			{Name: "status"},
		},
	}
}

func defaultNode(n *corev1.Node) {
	if n.Status.Allocatable == nil && n.Status.Capacity != nil {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
	roundUp(n.Status.Capacity)
	roundUp(n.Status.Allocatable)
	// podCIDR is the first of podCIDRs.
	if s := &n.Spec; s.PodCIDR != "" && (len(s.PodCIDRs) == 0 || s.PodCIDRs[0] != s.PodCIDR) {
		s.PodCIDRs = []string{s.PodCIDR}
	} else if len(s.PodCIDRs) > 0 {
		s.PodCIDR = s.PodCIDRs[0]
	}
}

// A node is created by its kubelet, status and all.
func resetNode(n, old *corev1.Node, sub string) {
	switch {
	case old == nil:
		n.Spec.ConfigSource, n.Status.Config = nil, nil
	case sub == "status":
		n.Spec = old.Spec
		if old.Status.Config == nil {
			n.Status.Config = nil
		}
	default:
		n.Status = old.Status
		if old.Spec.ConfigSource == nil {
			n.Spec.ConfigSource = nil
		}
	}
}

func validateNode(e *validate.Errs, n, old *corev1.Node, sub string) {
	st := validate.Root("status")
	for k, q := range n.Status.Capacity {
		resourceQuantity(e, k, q, st.Child("capacity").Child(string(k)))
	}
	for k, q := range n.Status.Allocatable {
		resourceQuantity(e, k, q, st.Child("allocatable").Child(string(k)))
	}
	declaredFeatures(e, n.Status.DeclaredFeatures, st.Child("declaredFeatures"))
	taints(e, n.Spec.Taints, validate.Root("metadata").Child("taints"))
	if sub != "status" {
		if s := n.Status.NodeInfo.Swap; s != nil && s.Capacity != nil && *s.Capacity <= 0 {
			e.Invalid(validate.Root("metadata").Child("nodeSwapStatus").Child("capacity"), *s.Capacity, "must be greater than zero")
		}
		podCIDRs(e, n.Spec.PodCIDRs)
	}
	if old == nil {
		return
	}
	var addresses seen[corev1.NodeAddress]
	for i, a := range n.Status.Addresses {
		if !addresses.add(a) {
			e.Duplicate(st.Child("addresses").Index(i), a)
		}
	}
	spec := validate.Root("spec")
	if len(old.Spec.PodCIDRs) > 0 {
		same := len(old.Spec.PodCIDRs) == len(n.Spec.PodCIDRs)
		for i := range old.Spec.PodCIDRs {
			same = same && old.Spec.PodCIDRs[i] == n.Spec.PodCIDRs[i]
		}
		if !same {
			e.Forbidden(spec.Child("podCIDRs"), `node updates may not change podCIDR except from "" to valid`)
		}
	}
	if old.Spec.ProviderID != "" && old.Spec.ProviderID != n.Spec.ProviderID {
		e.Forbidden(spec.Child("providerID"), `node updates may not change providerID except from "" to valid`)
	}
	if n.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID {
		e.Forbidden(spec.Child("externalID"), "may not be updated")
	}
}

func taints(e *validate.Errs, list []corev1.Taint, p *validate.Path) {
	type pair struct {
		key    string
		effect corev1.TaintEffect
	}
	var pairs seen[pair]
	for i := range list {
		t, at := &list[i], p.Index(i)
		validate.LabelKey(e, t.Key, at.Child("key"))
		if why := validate.LabelValue(t.Value); why != nil {
			e.Invalid(at.Child("value"), t.Value, strings.Join(why, ";"))
		}
		if t.Effect == "" {
			e.Required(at.Child("effect"), "")
		} else {
			taintEffect(e, t.Effect, at.Child("effect"))
		}
		if !pairs.add(pair{t.Key, t.Effect}) {
			twice := field.Duplicate(at.Field(), *t)
			twice.Detail = "taints must be unique by key and effect pair"
			e.Add(twice)
		}
	}
}

func podCIDRs(e *validate.Errs, list []string) {
	at := validate.Root("spec").Child("podCIDRs")
	for i, c := range list {
		cidr(e, c, nil, at.Index(i))
	}
	if len(list) > 1 {
		dual, err := netutils.IsDualStackCIDRStrings(list)
		if err != nil {
			e.Add(field.InternalError(at.Field(), fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:%v", err)))
		}
		if !dual || len(list) > 2 {
			e.Invalid(at, list, "may specify no more than one CIDR for each IP family")
		}
	}
}

// declaredFeatures: sorted names like MyFeature/mySubFeature (KEP-5328).
func declaredFeatures(e *validate.Errs, list []string, p *validate.Path) {
	for i, f := range list {
		if len(f) > 253 {
			e.Invalid(p.Index(i), f, fmt.Sprintf("invalid feature name %q: must be no more than 253 characters", f))
		} else if !isFeature(f) {
			e.Invalid(p.Index(i), f, fmt.Sprintf("invalid feature name %q: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes", f))
		}
		if i > 0 && list[i-1] == f {
			e.Duplicate(p.Index(i), f)
		} else if i > 0 && list[i-1] > f {
			e.Invalid(p.Index(i), f, "list must be sorted alphabetically")
		}
	}
}

func isFeature(s string) bool {
	for i, part := range strings.Split(s, "/") {
		if part == "" || !allAlnum(part) || part[0] <= '9' || i == 0 && part[0] >= 'a' {
			return false
		}
	}
	return true
}

func warnNode(n, _ *corev1.Node) []string {
	w := warner{}
	if n.Spec.ConfigSource != nil {
		w.addf("spec.configSource: the feature is removed")
	}
	if n.Spec.DoNotUseExternalID != "" {
		w.addf("spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	for i, c := range n.Spec.PodCIDRs {
		w.list = append(w.list, validation.GetWarningsForCIDR(field.NewPath("spec", "podCIDRs").Index(i), c)...)
	}
	return w.list
}

func nodeRow(n *corev1.Node) []any {
	status := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			status = "NotReady"
			if c.Status == corev1.ConditionTrue {
				status = "Ready"
			}
		}
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	known := func(s string) string {
		if s == "" {
			return "<unknown>"
		}
		return s
	}
	info := &n.Status.NodeInfo
	kernel := known(info.KernelVersion)
	if info.Architecture != "" {
		kernel += " (" + info.Architecture + ")"
	}
	return []any{n.Name, status, table.None(nodeRoles(n)), table.AgeOf(n), info.KubeletVersion,
		nodeAddress(n, corev1.NodeInternalIP), nodeAddress(n, corev1.NodeExternalIP), known(info.OSImage), kernel, known(info.ContainerRuntimeVersion)}
}

func nodeRoles(n *corev1.Node) string {
	roles := map[string]bool{}
	for k, v := range n.Labels {
		if role, ok := strings.CutPrefix(k, "node-role.kubernetes.io/"); ok && role != "" {
			roles[role] = true
		} else if k == "kubernetes.io/role" && v != "" {
			roles[v] = true
		}
	}
	list := make([]string, 0, len(roles))
	for r := range roles {
		list = append(list, r)
	}
	sort.Strings(list)
	return strings.Join(list, ",")
}

func nodeAddress(n *corev1.Node, typ corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == typ {
			return a.Address
		}
	}
	return "<none>"
}
