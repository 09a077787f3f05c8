// Package apiregistration describes APIService of apiregistration.k8s.io/v1: who
// serves a group and version, this server or one behind a Service.
package apiregistration

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
)

// Kinds of the group.
func Kinds() []*api.Kind {
	return []*api.Kind{{
		GroupVersionKind: apiregistrationv1.SchemeGroupVersion.WithKind("APIService"),
		Resource:         "apiservices",
		Path:             "apiregistration.k8s.io/apiservices",
		Categories:       []string{"api-extensions"},
		Cluster:          true,
		StrictUpdate:     true,
		New:              func() api.Object { return &apiregistrationv1.APIService{} },
		NewList:          func() runtime.Object { return &apiregistrationv1.APIServiceList{} },
		Default: api.Of(func(s *apiregistrationv1.APIService) {
			if s.Spec.Service != nil {
				apiregistrationv1.SetDefaults_ServiceReference(s.Spec.Service)
			}
		}),
		Reset: reset.SpecStatus(func(s *apiregistrationv1.APIService) (*apiregistrationv1.APIServiceSpec, *apiregistrationv1.APIServiceStatus) {
			return &s.Spec, &s.Status
		}),
		Validate:  api.Validates(validate),
		ValidName: func(string, bool) []string { return nil }, // validate says what it has to be
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Col("Service", "string", "The reference to the service that hosts this API endpoint."),
			table.Col("Available", "string", "Whether this service is available."),
			table.Age(),
		},
		Row:          api.Rows(row),
		Subresources: []api.Subresource{{Name: "status"}},
	}}
}

// Available is the condition that says whether a server can be asked, nil if it
// is not known.
func Available(s *apiregistrationv1.APIService) *apiregistrationv1.APIServiceCondition {
	for i := range s.Status.Conditions {
		if s.Status.Conditions[i].Type == apiregistrationv1.Available {
			return &s.Status.Conditions[i]
		}
	}
	return nil
}

func row(s *apiregistrationv1.APIService) []any {
	service, available := "Local", "Unknown"
	if s.Spec.Service != nil {
		service = s.Spec.Service.Namespace + "/" + s.Spec.Service.Name
	}
	if c := Available(s); c != nil {
		available = string(c.Status)
		if c.Status != apiregistrationv1.ConditionTrue {
			available += " (" + c.Reason + ")"
		}
	}
	return []any{s.Name, service, available, table.AgeOf(s)}
}

func validate(s, _ *apiregistrationv1.APIService, sub string) (all field.ErrorList) {
	if sub == "status" {
		for i, c := range s.Status.Conditions {
			switch c.Status {
			case apiregistrationv1.ConditionTrue, apiregistrationv1.ConditionFalse, apiregistrationv1.ConditionUnknown:
			default:
				all = append(all, field.NotSupported(field.NewPath("status", "conditions").Index(i).Child("status"), c.Status, []string{"True", "False", "Unknown"}))
			}
		}
		return all
	}
	spec := field.NewPath("spec")
	bad := func(name string, value any, why string) {
		all = append(all, field.Invalid(spec.Child(name), value, why))
	}
	if want := s.Spec.Version + "." + s.Spec.Group; s.Name != want {
		all = append(all, field.Invalid(field.NewPath("metadata", "name"), s.Name, fmt.Sprintf("must be `spec.version+\".\"+spec.group`: %q", want)))
	}
	if s.Spec.Group == "" && s.Spec.Version != "v1" {
		all = append(all, field.Required(spec.Child("group"), "only v1 may have an empty group and it better be legacy kube"))
	}
	if s.Spec.Group != "" {
		for _, why := range validation.IsDNS1123Subdomain(s.Spec.Group) {
			bad("group", s.Spec.Group, why)
		}
	}
	for _, why := range validation.IsDNS1035Label(s.Spec.Version) {
		bad("version", s.Spec.Version, why)
	}
	if n := s.Spec.GroupPriorityMinimum; n <= 0 || n > 20000 {
		bad("groupPriorityMinimum", n, "must be positive and less than 20000")
	}
	if n := s.Spec.VersionPriority; n <= 0 || n > 1000 {
		bad("versionPriority", n, "must be positive and less than 1000")
	}
	to := s.Spec.Service
	if to == nil {
		if len(s.Spec.CABundle) > 0 {
			bad("caBundle", fmt.Sprintf("%d bytes", len(s.Spec.CABundle)), "local APIServices may not have a caBundle")
		}
		if s.Spec.InsecureSkipTLSVerify {
			bad("insecureSkipTLSVerify", true, "local APIServices may not have insecureSkipTLSVerify")
		}
		return all
	}
	if to.Namespace == "" {
		all = append(all, field.Required(spec.Child("service", "namespace"), ""))
	}
	if to.Name == "" {
		all = append(all, field.Required(spec.Child("service", "name"), ""))
	}
	if to.Port != nil {
		if why := validation.IsValidPortNum(int(*to.Port)); why != nil {
			all = append(all, field.Invalid(spec.Child("service", "port"), *to.Port, "port is not valid: "+strings.Join(why, ", ")))
		}
	}
	if s.Spec.InsecureSkipTLSVerify && len(s.Spec.CABundle) > 0 {
		bad("insecureSkipTLSVerify", true, "may not be true if caBundle is present")
	}
	return all
}
