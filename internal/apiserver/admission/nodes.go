package admission

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/cache"
)

// TaintNodes keeps pods off a new node until the node controller has seen that
// it is ready.
type TaintNodes struct{}

// Name implements Plugin.
func (TaintNodes) Name() string { return "TaintNodesByCondition" }

// Admit implements Mutator.
func (TaintNodes) Admit(_ context.Context, w *Write) error {
	node, ok := w.Object.(*corev1.Node)
	if !ok || w.Operation != Create || w.Subresource != "" {
		return nil
	}
	taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	for _, t := range node.Spec.Taints {
		if t.MatchTaint(&taint) {
			return nil
		}
	}
	node.Spec.Taints = append(node.Spec.Taints, taint)
	return nil
}

// NodeRestriction keeps a kubelet's writes to its own node and to the pods bound
// to it, as the admission plugin of that name has done since Kubernetes 1.8.
type NodeRestriction struct {
	Pods cache.Typed[*corev1.Pod]
}

// Name implements Plugin.
func (*NodeRestriction) Name() string { return "NodeRestriction" }

// Validate implements Validator.
func (p *NodeRestriction) Validate(_ context.Context, w *Write) error {
	node, ok := auth.NodeOf(w.User)
	if !ok {
		return nil
	}
	why := ""
	switch w.Kind.Kind.Group + "/" + w.Kind.Resource {
	case "/pods":
		why = p.pod(node, w)
	case "/nodes":
		why = ownNode(node, w)
	case "/serviceaccounts":
		// the Node authoriser has seen that a pod of the node uses the account
	case "coordination.k8s.io/leases":
		if w.Namespace != corev1.NamespaceNodeLease || w.Name != node {
			why = fmt.Sprintf("node %q may write only its own lease in %s", node, corev1.NamespaceNodeLease)
		}
	case "storage.k8s.io/csinodes":
		if w.Name != node {
			why = fmt.Sprintf("node %q can only write its own CSINode", node)
		}
	}
	if why == "" {
		return nil
	}
	return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name, fmt.Errorf("%s", why))
}

func (p *NodeRestriction) pod(node string, w *Write) string {
	switch {
	case w.Subresource == "" && w.Operation == Create:
		pod, _ := w.Object.(*corev1.Pod)
		if pod == nil || !isMirror(pod) {
			return fmt.Sprintf("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
		}
		if pod.Spec.NodeName != node {
			return fmt.Sprintf("node %q can only create pods with spec.nodeName set to itself", node)
		}
		if len(pod.OwnerReferences) > 1 || len(pod.OwnerReferences) == 1 && (pod.OwnerReferences[0].Kind != "Node" || pod.OwnerReferences[0].Name != node) {
			return fmt.Sprintf("node %q can only create pods with an owner reference set to itself", node)
		}
		return ""
	case w.Subresource == "" && w.Operation == Update:
		return fmt.Sprintf("node %q cannot update pods through the pod itself, only through its status", node)
	}
	pod, ok := p.Pods.Get(w.Namespace, w.Name)
	if !ok || pod.Spec.NodeName == node || another(w, pod) {
		return ""
	}
	return fmt.Sprintf("node %q can only touch pods with spec.nodeName set to itself", node)
}

// another says that the request is about a pod that had the name before: the verb
// will find that its precondition does not hold, and say so.
func another(w *Write, pod *corev1.Pod) bool {
	o, ok := w.Options.(*metav1.DeleteOptions)
	return ok && o.Preconditions != nil && o.Preconditions.UID != nil && *o.Preconditions.UID != pod.UID
}

// Labels that a kubelet may set on its own node.
var kubeletLabels = map[string]bool{
	corev1.LabelHostname: true, corev1.LabelOSStable: true, corev1.LabelArchStable: true, corev1.LabelInstanceTypeStable: true,
	corev1.LabelTopologyZone: true, corev1.LabelTopologyRegion: true, corev1.LabelFailureDomainBetaZone: true, corev1.LabelFailureDomainBetaRegion: true,
	corev1.LabelInstanceType: true, "beta.kubernetes.io/os": true, "beta.kubernetes.io/arch": true,
}

func ownNode(node string, w *Write) string {
	if w.Operation == Delete {
		return fmt.Sprintf("node %q cannot delete nodes", node)
	}
	if w.Name != node {
		return fmt.Sprintf("node %q is not allowed to modify node %q", node, w.Name)
	}
	now, _ := w.Object.(*corev1.Node)
	if now == nil {
		return ""
	}
	old, _ := w.Old.(*corev1.Node)
	var oldLabels map[string]string
	if old != nil {
		oldLabels = old.Labels
		if !equality.Semantic.DeepEqual(old.Spec.Taints, now.Spec.Taints) {
			return fmt.Sprintf("node %q is not allowed to modify taints", node)
		}
		if len(old.OwnerReferences) != len(now.OwnerReferences) {
			return fmt.Sprintf("node %q is not allowed to modify owner references", node)
		}
	}
	var bad []string
	for k, v := range now.Labels {
		if have, was := oldLabels[k]; (!was || have != v) && !labelAllowed(k) {
			bad = append(bad, k)
		}
	}
	for k := range maps.Keys(oldLabels) {
		if _, is := now.Labels[k]; !is && !labelAllowed(k) {
			bad = append(bad, k)
		}
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		return fmt.Sprintf("is not allowed to modify labels: %s", strings.Join(bad, ", "))
	}
	return ""
}

func labelAllowed(label string) bool {
	domain, _, ok := strings.Cut(label, "/")
	if !ok || kubeletLabels[label] {
		return true
	}
	if domain == "node-restriction.kubernetes.io" || strings.HasSuffix(domain, ".node-restriction.kubernetes.io") {
		return false
	}
	ours := domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io") || domain == "k8s.io" || strings.HasSuffix(domain, ".k8s.io")
	free := domain == "kubelet.kubernetes.io" || strings.HasSuffix(domain, ".kubelet.kubernetes.io") ||
		domain == "node.kubernetes.io" || strings.HasSuffix(domain, ".node.kubernetes.io")
	return !ours || free
}
