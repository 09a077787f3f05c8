package managedfields

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
)

// resetFields are the fields that a write through the object itself (sub "")
// or one of its subresources does not touch, whatever its body says: nobody
// comes to own them by it. As a rule the status belongs to the status
// subresource and everything in spec does not.
func resetFields(kind *api.Kind, sub string) *set {
	if special, ok := resets[resetKey{kind.GroupResource(), sub}]; ok {
		return special
	}
	switch {
	case sub == "" && kind.Subresource("status") != nil:
		return statusOnly
	case sub == "status":
		return specOnly
	}
	return nil
}

type resetKey struct {
	schema.GroupResource
	sub string
}

var (
	statusOnly = setOf("status")
	specOnly   = setOf("spec")
	specAndAll = setOf("spec", "metadata")
)

// resets are the exceptions.
var resets = map[resetKey]*set{
	{schema.GroupResource{Resource: "pods"}, "status"}:                                                               setOf("spec", "metadata.deletionTimestamp", "metadata.ownerReferences"),
	{schema.GroupResource{Resource: "pods"}, "resize"}:                                                               statusOnly,
	{schema.GroupResource{Resource: "pods"}, "ephemeralcontainers"}:                                                  statusOnly,
	{schema.GroupResource{Resource: "namespaces"}, "finalize"}:                                                       statusOnly,
	{schema.GroupResource{Group: "apps", Resource: "deployments"}, "status"}:                                         setOf("spec", "metadata.labels"),
	{schema.GroupResource{Group: "networking.k8s.io", Resource: "servicecidrs"}, "status"}:                           specAndAll,
	{schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"}, "status"}:                           specAndAll,
	{schema.GroupResource{Group: "storage.k8s.io", Resource: "volumeattachments"}, "status"}:                         specAndAll,
	{schema.GroupResource{Group: "flowcontrol.apiserver.k8s.io", Resource: "flowschemas"}, "status"}:                 specAndAll,
	{schema.GroupResource{Group: "flowcontrol.apiserver.k8s.io", Resource: "prioritylevelconfigurations"}, "status"}: specAndAll,
	{schema.GroupResource{Group: "storagemigration.k8s.io", Resource: "storageversionmigrations"}, "status"}:         specAndAll,
	{schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}, ""}:                 setOf("spec", "status"),
	{schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}, "status"}:           setOf("spec", "status.conditions"),
	{schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}, "approval"}:         setOf("spec", "status.certificate"),
}
