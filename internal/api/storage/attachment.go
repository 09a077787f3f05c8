package storage

import (
	"math"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/reset"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

func attachment() *api.Kind {
	attacher := table.Col("Attacher", "string", storagev1.VolumeAttachmentSpec{}.SwaggerDoc()["attacher"])
	attacher.Format = "name"
	return &api.Kind{
		GroupVersionKind: gvk("VolumeAttachment"),
		Resource:         "volumeattachments",
		Cluster:          true,
		New:              func() api.Object { return &storagev1.VolumeAttachment{} },
		NewList:          func() runtime.Object { return &storagev1.VolumeAttachmentList{} },
		StrictUpdate:     true,
		Reset: reset.Status(func(a *storagev1.VolumeAttachment) (*storagev1.VolumeAttachmentSpec, *storagev1.VolumeAttachmentStatus) {
			return &a.Spec, &a.Status
		}),
		Validate: api.Validates(validateAttachment),
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			attacher,
			table.Col("PV", "string", storagev1.VolumeAttachmentSource{}.SwaggerDoc()["persistentVolumeName"]),
			table.Col("Node", "string", storagev1.VolumeAttachmentSpec{}.SwaggerDoc()["nodeName"]),
			table.Col("Attached", "boolean", storagev1.VolumeAttachmentStatus{}.SwaggerDoc()["attached"]),
			table.Age(),
		},
		Row: api.Rows(func(a *storagev1.VolumeAttachment) []any {
			return []any{a.Name, a.Spec.Attacher, or(a.Spec.Source.PersistentVolumeName, ""), a.Spec.NodeName, a.Status.Attached, table.AgeOf(a)}
		}),
		Subresources: []api.Subresource{{Name: "status"}},
	}
}

func validateAttachment(a, old *storagev1.VolumeAttachment, _ string) field.ErrorList {
	var e validate.Errs
	p, s := validate.Root("spec"), &a.Spec
	driverName(&e, s.Attacher, p.Child("attacher"))
	source(&e, &s.Source, p.Child("source"))
	e.Invalids(p.Child("nodeName"), s.NodeName, validate.Subdomain(s.NodeName))
	const maxMetadata = 256 << 10
	size := 0
	for k, v := range a.Status.AttachmentMetadata {
		size += len(k) + len(v)
	}
	at := validate.Root("status")
	if size > maxMetadata {
		e.TooLong(at.Child("attachmentMetadata"), maxMetadata)
	}
	volumeError(&e, a.Status.AttachError, at.Child("attachError"))
	volumeError(&e, a.Status.DetachError, at.Child("detachError"))
	if name := s.Source.PersistentVolumeName; name != nil {
		e.Invalids(p.Child("source").Child("persistentVolumeName"), *name, validate.Subdomain(*name))
	}
	if old != nil {
		e.Immutable(p, a.Spec, old.Spec)
	}
	return e.List()
}

func source(e *validate.Errs, s *storagev1.VolumeAttachmentSource, p *validate.Path) {
	const exactlyOne = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
	switch {
	case s.InlineVolumeSpec == nil && s.PersistentVolumeName == nil:
		e.Required(p, exactlyOne)
	case s.InlineVolumeSpec != nil && s.PersistentVolumeName != nil:
		e.Forbidden(p, exactlyOne)
	case s.PersistentVolumeName != nil && *s.PersistentVolumeName == "":
		e.Required(p.Child("persistentVolumeName"), "must specify non empty persistentVolumeName")
	}
}

func volumeError(e *validate.Errs, v *storagev1.VolumeError, p *validate.Path) {
	const maxMessage = 1024
	if v == nil {
		return
	}
	if len(v.Message) > maxMessage {
		e.TooLong(p.Child("message"), maxMessage)
	}
	if v.ErrorCode != nil && *v.ErrorCode < 0 {
		e.Invalid(p.Child("errorCode"), *v.ErrorCode, validation.InclusiveRangeError(0, math.MaxInt32))
	}
}
