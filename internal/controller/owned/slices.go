package owned

import (
	"maps"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// WakeBySlice queues who an EndpointSlice of a manager is for (the name in its
// label), when somebody changed it, took it from the manager or gave it to it.
func WakeBySlice(q *loop.Queue, managedBy string) func(old, now *discoveryv1.EndpointSlice) {
	return func(old, now *discoveryv1.EndpointSlice) {
		if old != nil && now != nil && old.Generation == now.Generation && maps.Equal(old.Labels, now.Labels) &&
			maps.Equal(old.Annotations, now.Annotations) && equality.Semantic.DeepEqual(old.OwnerReferences, now.OwnerReferences) {
			return
		}
		for _, s := range []*discoveryv1.EndpointSlice{old, now} {
			if s == nil || s.Labels[discoveryv1.LabelManagedBy] != managedBy {
				continue
			}
			if name := s.Labels[discoveryv1.LabelServiceName]; name != "" {
				q.Add(client.Key(s.Namespace, name))
			}
		}
	}
}
