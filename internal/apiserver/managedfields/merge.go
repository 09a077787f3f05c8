package managedfields

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/proa-dev/proa/internal/api"
)

// Merge a configuration into an object, both in the served version, by the list
// and map types of the schema; nobody comes to own anything. Neither is changed.
func (m *Manager) Merge(kind api.Served, obj api.Object, config *unstructured.Unstructured) (map[string]any, error) {
	var types managedfields.TypeConverter = library{m: m, kind: kind.Kind}
	if kind.Encoding != api.Protobuf {
		types = managedfields.NewDeducedTypeConverter()
		if m.custom != nil {
			if c := m.custom(kind.GVK()); c != nil {
				types = c
			}
		}
	}
	to, err := types.ObjectToTyped(obj)
	if err != nil {
		return nil, fmt.Errorf("failed to convert original object to typed object: %w", err)
	}
	by, err := types.ObjectToTyped(config)
	if err != nil {
		return nil, fmt.Errorf("failed to convert patch object to typed object: %w", err)
	}
	merged, err := to.Merge(by)
	if err != nil {
		return nil, err
	}
	out, ok := merged.AsValue().Unstructured().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the outcome is no object")
	}
	return out, nil
}
