package resource

import (
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
)

// StandsFor says whether devices of a class are an extended resource: the one of its
// own that each class has, or the one that it names (KEP-5004).
func StandsFor(c *resourcev1.DeviceClass, name corev1.ResourceName) bool {
	return string(name) == resourcev1.ResourceDeviceClassPrefix+c.Name || c.Spec.ExtendedResourceName != nil && string(name) == *c.Spec.ExtendedResourceName
}
