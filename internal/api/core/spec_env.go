package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/proa-dev/proa/internal/api/validate"
)

func (c *specCheck) env(vars []corev1.EnvVar, p *validate.Path) {
	for i := range vars {
		v, at := &vars[i], p.Index(i)
		if v.Name == "" {
			c.e.Required(at.Child("name"), "")
		} else if why := validation.IsRelaxedEnvVarName(v.Name); why != nil {
			c.e.Invalids(at.Child("name"), v.Name, why)
		}
		if v.ValueFrom != nil {
			envValueFrom(c.e, v, at.Child("valueFrom"))
		}
	}
}

func envValueFrom(e *validate.Errs, v *corev1.EnvVar, p *validate.Path) {
	from, n := v.ValueFrom, 0
	if from.FieldRef != nil {
		n++
		fieldRef(e, from.FieldRef, envFields, p.Child("fieldRef"))
	}
	if from.ResourceFieldRef != nil {
		n++
		resourceFieldRef(e, from.ResourceFieldRef, false, p.Child("resourceFieldRef"))
	}
	if r := from.ConfigMapKeyRef; r != nil {
		n++
		keyRef(e, r.Name, r.Key, p.Child("configMapKeyRef"))
	}
	if r := from.SecretKeyRef; r != nil {
		n++
		keyRef(e, r.Name, r.Key, p.Child("secretKeyRef"))
	}
	if from.FileKeyRef != nil {
		n++
		fileKeyRef(e, from.FileKeyRef, p.Child("fileKeyRef"))
	}
	switch {
	case n == 0:
		e.Invalid(p, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
	case v.Value != "":
		e.Invalid(p, "", "may not be specified when `value` is not empty")
	case n > 1:
		e.Invalid(p, "", "may not have more than one field specified at a time")
	}
}

func keyRef(e *validate.Errs, name, key string, p *validate.Path) {
	requiredSubdomain(e, name, p.Child("name"))
	if key == "" {
		e.Required(p.Child("key"), "")
	} else if why := validation.IsConfigMapKey(key); why != nil {
		e.Invalids(p.Child("key"), key, why)
	}
}

func fileKeyRef(e *validate.Errs, r *corev1.FileKeySelector, p *validate.Path) {
	if r.Key == "" {
		e.Required(p.Child("key"), "")
	} else {
		e.Invalids(p.Child("key"), r.Key, validation.IsRelaxedEnvVarName(r.Key))
	}
	if r.VolumeName == "" {
		e.Required(p.Child("volumeName"), "")
	} else {
		label(e, r.VolumeName, p.Child("volumeName"))
	}
	if r.Path == "" {
		e.Required(p.Child("path"), "")
	} else {
		noBacksteps(e, r.Path, p.Child("path"))
	}
}

// A file of variables has to lie in an emptyDir of the pod.
func (c *specCheck) fileKeyVolumes(p *validate.Path) {
	eachContainer(c.spec, func(kind string, i int, ctr *corev1.Container) {
		for j := range ctr.Env {
			from := ctr.Env[j].ValueFrom
			if from == nil || from.FileKeyRef == nil {
				continue
			}
			at := p.Child(kind).Index(i).Child("env").Index(j).Child("valueFrom").Child("fileKeyRef").Child("volumeName")
			var volume *corev1.Volume
			for k := range c.spec.Volumes {
				if c.spec.Volumes[k].Name == from.FileKeyRef.VolumeName {
					volume = &c.spec.Volumes[k]
				}
			}
			if volume == nil {
				c.e.NotFound(at, from.FileKeyRef.VolumeName)
			} else if volume.EmptyDir == nil {
				c.e.Invalid(at, from.FileKeyRef.VolumeName, "referenced volume must be of type emptyDir")
			}
		}
	})
}

func envFrom(e *validate.Errs, sources []corev1.EnvFromSource, p *validate.Path) {
	for i := range sources {
		s, at := &sources[i], p.Index(i)
		if s.Prefix != "" {
			e.Invalids(at.Child("prefix"), s.Prefix, validation.IsRelaxedEnvVarName(s.Prefix))
		}
		n := 0
		if s.ConfigMapRef != nil {
			n++
			envSourceName(e, s.ConfigMapRef.Name, at.Child("configMapRef").Child("name"))
		}
		if s.SecretRef != nil {
			n++
			envSourceName(e, s.SecretRef.Name, at.Child("secretRef").Child("name"))
		}
		if n == 0 {
			e.Invalid(p, "", "must specify one of: `configMapRef` or `secretRef`")
		} else if n > 1 {
			e.Invalid(p, "", "may not have more than one field specified at a time")
		}
	}
}

func envSourceName(e *validate.Errs, name string, p *validate.Path) {
	if name == "" {
		e.Required(p, "")
	} else {
		e.Invalids(p, name, validate.SubdomainName(name, true))
	}
}

// fieldSet says which fields of a pod may be asked for, and lists them.
type fieldSet func() []string

func envFields() []string {
	return []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"}
}

func volumeFields() []string {
	return []string{"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}
}

func fieldRef(e *validate.Errs, r *corev1.ObjectFieldSelector, allowed fieldSet, p *validate.Path) {
	if r.APIVersion == "" {
		e.Required(p.Child("apiVersion"), "")
		return
	}
	if r.FieldPath == "" {
		e.Required(p.Child("fieldPath"), "")
		return
	}
	path, key, subscripted := splitSubscript(r.FieldPath)
	var why string
	switch {
	case r.APIVersion != "v1":
		why = "unsupported pod version: " + r.APIVersion
	case subscripted && path != "metadata.annotations" && path != "metadata.labels":
		why = "field label does not support subscript: " + r.FieldPath
	case !subscripted && !isDownwardField(path):
		why = "field label not supported: " + r.FieldPath
	}
	if why != "" {
		e.Invalid(p.Child("fieldPath"), r.FieldPath, "error converting fieldPath: "+why)
		return
	}
	if subscripted {
		if path == "metadata.annotations" {
			key = strings.ToLower(key)
		}
		validate.LabelKey(e, key, p)
		return
	}
	if path == "spec.host" {
		path = "spec.nodeName"
	}
	for _, ok := range allowed() {
		if ok == path {
			return
		}
	}
	validate.NotSupported(e, p.Child("fieldPath"), path, allowed()...)
}

// splitSubscript takes metadata.labels['key'] apart.
func splitSubscript(s string) (path, key string, ok bool) {
	path, key, ok = strings.Cut(s, "['")
	if !ok || path == "" || !strings.HasSuffix(s, "']") {
		return s, "", false
	}
	return path, strings.TrimSuffix(key, "']"), true
}

func isDownwardField(path string) bool {
	switch path {
	case "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
		"spec.nodeName", "spec.host", "spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName",
		"status.phase", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs":
		return true
	}
	return false
}

func resourceFieldRef(e *validate.Errs, r *corev1.ResourceFieldSelector, volume bool, p *validate.Path) {
	huge := strings.HasPrefix(r.Resource, "requests.hugepages-") || strings.HasPrefix(r.Resource, "limits.hugepages-")
	_, what, _ := strings.Cut(r.Resource, ".")
	known := huge
	switch r.Resource {
	case "limits.cpu", "limits.memory", "limits.ephemeral-storage", "requests.cpu", "requests.memory", "requests.ephemeral-storage":
		known = true
	}
	switch {
	case volume && r.ContainerName == "":
		e.Required(p.Child("containerName"), "")
	case r.Resource == "":
		e.Required(p.Child("resource"), "")
	case !known:
		validate.NotSupported(e, p.Child("resource"), r.Resource, "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory")
	}
	if r.Divisor.IsZero() || !known {
		return
	}
	const sizes = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei"
	name, good := what+" resource", false
	switch {
	case what == "cpu":
		d := r.Divisor.String()
		if d != "1" && d != "1m" {
			e.Invalid(p.Child("divisor"), r.Resource, "only divisor's values 1m and 1 are supported with the cpu resource")
		}
		return
	case what == "ephemeral-storage":
		name = "local ephemeral storage resource"
	case huge:
		name = "hugepages resource"
	}
	for size := range strings.SplitSeq(sizes, ", ") {
		good = good || size == r.Divisor.String()
	}
	if !good {
		e.Invalid(p.Child("divisor"), r.Resource, fmt.Sprintf("only divisor's values %s are supported with the %s", sizes, name))
	}
}
