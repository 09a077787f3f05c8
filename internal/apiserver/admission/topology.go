package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/cache"
)

// PodTopologyLabels writes where a node is (zone and region) on the pods that come to
// it, so that what runs in them can know (KEP-4742): when a pod is bound, or when it is
// created for a node.
type PodTopologyLabels struct {
	Nodes cache.Typed[*corev1.Node]
}

// Name implements Plugin.
func (*PodTopologyLabels) Name() string { return "PodTopologyLabels" }

// Admit implements Mutator.
func (p *PodTopologyLabels) Admit(_ context.Context, w *Write) error {
	if w.Operation != Create || w.Kind.Group != "" || w.Kind.Resource != "pods" {
		return nil
	}
	switch {
	case w.Subresource == "binding":
		if b, ok := w.Body.(*corev1.Binding); ok && b.Target.Kind == "Node" {
			b.Labels = p.with(b.Labels, b.Target.Name)
		}
	case w.Subresource == "":
		if pod, ok := w.Object.(*corev1.Pod); ok && pod.Spec.NodeName != "" {
			pod.Labels = p.with(pod.Labels, pod.Spec.NodeName)
		}
	}
	return nil
}

// with are labels with those of a node that say where it is. What they said before
// does not count; of a node that is not known nothing is said.
func (p *PodTopologyLabels) with(labels map[string]string, node string) map[string]string {
	n, ok := p.Nodes.Get("", node)
	if !ok {
		return labels
	}
	for _, name := range []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion} {
		where, ok := n.Labels[name]
		if !ok {
			continue
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[name] = where
	}
	return labels
}
