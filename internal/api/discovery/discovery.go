// Package discovery describes EndpointSlice of discovery.k8s.io/v1.
package discovery

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
)

// ServiceIndex is the name of the index of slices by "NAMESPACE/SERVICE".
const ServiceIndex = "service"

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{{
		GroupVersionKind: discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
		Resource:         "endpointslices",
		New:              func() api.Object { return &discoveryv1.EndpointSlice{} },
		NewList:          func() runtime.Object { return &discoveryv1.EndpointSliceList{} },
		Default:          api.Of(defaultSlice),
		Reset:            api.Resets(resetSlice),
		Validate:         api.Validates(func(s, old *discoveryv1.EndpointSlice, _ string) field.ErrorList { return validateSlice(s, old) }),
		Warn:             api.Warns(warn),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("AddressType", "string", discoveryv1.EndpointSlice{}.SwaggerDoc()["addressType"]),
			table.Col("Ports", "string", discoveryv1.EndpointSlice{}.SwaggerDoc()["ports"]),
			table.Col("Endpoints", "string", discoveryv1.EndpointSlice{}.SwaggerDoc()["endpoints"]),
			table.Age(),
		},
		Row: api.Rows(func(s *discoveryv1.EndpointSlice) []any {
			return []any{s.Name, string(s.AddressType), portCell(s.Ports), endpointCell(s.Endpoints), table.AgeOf(s)}
		}),
		Indexes: map[string]func(api.Object) []string{ServiceIndex: serviceOf},
	}}
}

func serviceOf(obj api.Object) []string {
	if name := obj.GetLabels()[discoveryv1.LabelServiceName]; name != "" {
		return []string{obj.GetNamespace() + "/" + name}
	}
	return nil
}

func defaultSlice(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		defaults.Ptr(&s.Ports[i].Name, "")
		defaults.Ptr(&s.Ports[i].Protocol, corev1.ProtocolTCP)
	}
}

func resetSlice(s, old *discoveryv1.EndpointSlice, _ string) {
	if old == nil {
		s.Generation = 1
		dropTopology(s, nil)
		return
	}
	endpoints := reset.Differ(s.Endpoints, old.Endpoints)
	reset.Generation(s, old, endpoints || s.AddressType != old.AddressType ||
		reset.Differ(s.Ports, old.Ports) || reset.Differ(s.Labels, old.Labels))
	if endpoints {
		dropTopology(s, old)
	}
}

// dropTopology empties what only v1beta1 wrote. Its node name moves to the field
// that v1 has for it.
func dropTopology(s, old *discoveryv1.EndpointSlice) {
	known := map[string]bool{}
	if old != nil {
		for i := range old.Endpoints {
			known[old.Endpoints[i].DeprecatedTopology[corev1.LabelHostname]] = true
		}
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if node := e.DeprecatedTopology[corev1.LabelHostname]; e.NodeName == nil && node != "" && known[node] {
			e.NodeName = &node
		}
		e.DeprecatedTopology = nil
	}
}

func warn(s, old *discoveryv1.EndpointSlice) []string {
	var warnings []string
	if old == nil && s.AddressType == discoveryv1.AddressTypeFQDN {
		warnings = append(warnings, "spec.addressType: FQDN endpoints are deprecated")
	}
	switch s.Labels[discoveryv1.LabelManagedBy] {
	case "endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io":
		return warnings
	}
	for i := range s.Endpoints {
		for j, address := range s.Endpoints[i].Addresses {
			warnings = append(warnings, validation.GetWarningsForIP(field.NewPath("endpoints").Index(i).Child("addresses").Index(j), address)...)
		}
	}
	return warnings
}

func portCell(ports []discoveryv1.EndpointPort) string {
	var all []string
	for _, p := range ports {
		switch {
		case p.Port != nil:
			all = append(all, strconv.Itoa(int(*p.Port)))
		case p.Name != nil:
			all = append(all, *p.Name)
		default:
			all = append(all, "*")
		}
	}
	return firstThree(all)
}

func endpointCell(endpoints []discoveryv1.Endpoint) string {
	var all []string
	for i := range endpoints {
		all = slices.Concat(all, endpoints[i].Addresses)
	}
	return firstThree(all)
}

func firstThree(all []string) string {
	const most = 3
	if len(all) > most {
		return fmt.Sprintf("%s + %d more...", strings.Join(all[:most], ","), len(all)-most)
	}
	if text := strings.Join(all, ","); text != "" {
		return text
	}
	return "<unset>"
}
