package api

import "k8s.io/apimachinery/pkg/runtime/schema"

// StoredAlike is a version, for Kind.Stored, whose objects have the same fields
// under the same names and protobuf numbers as those of the kind.
func StoredAlike(kind schema.GroupVersionKind, version string) Shape {
	kind.Version = version
	return Shape{GroupVersionKind: kind}
}
