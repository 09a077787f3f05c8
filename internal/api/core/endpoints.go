package core

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/defaults"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func endpointsKind() *api.Kind {
	return &api.Kind{
		GroupVersionKind: gvk("Endpoints"),
		Resource:         "endpoints",
		ShortNames:       []string{"ep"},
		Path:             "services/endpoints",
		Deprecated:       "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
		New:              func() api.Object { return &corev1.Endpoints{} },
		NewList:          func() runtime.Object { return &corev1.EndpointsList{} },
		Default: api.Of(func(ep *corev1.Endpoints) {
			for i := range ep.Subsets {
				for j := range ep.Subsets[i].Ports {
					defaults.Zero(&ep.Subsets[i].Ports[j].Protocol, corev1.ProtocolTCP)
				}
			}
		}),
		Validate:       checks(validateEndpoints),
		Warn:           api.Warns(warnEndpoints),
		Columns:        []metav1.TableColumnDefinition{table.Name(), table.Col("Endpoints", "string", corev1.Endpoints{}.SwaggerDoc()["subsets"]), table.Age()},
		Row:            api.Rows(func(ep *corev1.Endpoints) []any { return []any{ep.Name, endpointList(ep), table.AgeOf(ep)} }),
		CreateOnUpdate: true,
	}
}

func validateEndpoints(e *validate.Errs, ep, old *corev1.Endpoints, _ string) {
	var found validate.Errs
	for i := range ep.Subsets {
		s, at := &ep.Subsets[i], validate.Root("subsets").Index(i)
		if len(s.Addresses)+len(s.NotReadyAddresses) == 0 {
			found.Required(at, "must specify `addresses` or `notReadyAddresses`")
		}
		for j := range s.Addresses {
			endpointAddress(&found, &s.Addresses[j], at.Child("addresses").Index(j))
		}
		for j := range s.NotReadyAddresses {
			endpointAddress(&found, &s.NotReadyAddresses[j], at.Child("notReadyAddresses").Index(j))
		}
		for j := range s.Ports {
			port, at := &s.Ports[j], at.Child("ports").Index(j)
			if port.Name != "" {
				label(&found, port.Name, at.Child("name"))
			} else if len(s.Ports) > 1 {
				found.Required(at.Child("name"), "")
			}
			validate.Port(&found, port.Port, at.Child("port"))
			protocol(&found, port.Protocol, at.Child("protocol"))
			if port.AppProtocol != nil {
				validate.LabelKey(&found, *port.AppProtocol, at.Child("appProtocol"))
			}
		}
	}
	// Older versions took what is refused today; it may stay as it is.
	if found.Len() > 0 && (old == nil || !apiequality.Semantic.DeepEqual(old.Subsets, ep.Subsets)) {
		e.Add(found.List()...)
	}
}

func endpointAddress(e *validate.Errs, a *corev1.EndpointAddress, p *validate.Path) {
	ip(e, a.IP, nil, p.Child("ip"))
	if a.Hostname != "" {
		label(e, a.Hostname, p.Child("hostname"))
	}
	if a.NodeName != nil {
		requiredSubdomain(e, *a.NodeName, p.Child("nodeName"))
	}
	EndpointIP(e, a.IP, p.Child("ip"))
}

func warnEndpoints(ep, _ *corev1.Endpoints) []string {
	if ep.Labels["endpoints.kubernetes.io/managed-by"] == "endpoint-controller" {
		return nil
	}
	w := warner{}
	for i := range ep.Subsets {
		for j, a := range ep.Subsets[i].Addresses {
			w.ip(field.NewPath("subsets").Index(i).Child("addresses").Index(j).Child("ip"), a.IP)
		}
		for j, a := range ep.Subsets[i].NotReadyAddresses {
			w.ip(field.NewPath("subsets").Index(i).Child("notReadyAddresses").Index(j).Child("ip"), a.IP)
		}
	}
	return w.list
}

// endpointList names the first three.
func endpointList(ep *corev1.Endpoints) string {
	if len(ep.Subsets) == 0 {
		return "<none>"
	}
	const most = 3
	var list []string
	n := 0
	add := func(s string) {
		if n++; n <= most {
			list = append(list, s)
		}
	}
	for i := range ep.Subsets {
		s := &ep.Subsets[i]
		if len(s.Ports) == 0 {
			for _, a := range s.Addresses {
				add(a.IP)
			}
		}
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				add(net.JoinHostPort(a.IP, strconv.Itoa(int(p.Port))))
			}
		}
	}
	text := strings.Join(list, ",")
	if n > most {
		return fmt.Sprintf("%s + %d more...", text, n-most)
	}
	return text
}
