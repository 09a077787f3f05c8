package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
)

// Node authorises kubelets (KEP "node authorizer" and AuthorizeNodeWithSelectors):
// what the role system:node allows, but secrets, config maps, volumes, claims and
// tokens only where a pod of that node refers to them, and only the node's own
// leases, CSI node, slices and pods. The references are read off the cache's
// index of pods by node when asked: a node has a hundred pods, not a graph.
//
// It also authorises the service proxy's part of a node (group NetworkGroup) to
// read the TLS secrets that some Ingress names, and no others.
type Node struct {
	Rules       []rbacv1.PolicyRule // of the role system:node
	Pods        cache.Typed[*corev1.Pod]
	Claims      cache.Typed[*corev1.PersistentVolumeClaim]
	Volumes     cache.Typed[*corev1.PersistentVolume]
	Attachments cache.Typed[*storagev1.VolumeAttachment]
	Ingresses   cache.Typed[*networkingv1.Ingress]
}

// NetworkGroup is the group of those who proxy, resolve names and serve
// ingresses on a node.
const NetworkGroup = "system:proa:network"

// Authorize implements Authorizer.
func (n *Node) Authorize(_ context.Context, u *request.User, a Attributes) (Decision, string, error) {
	if u.InGroup(NetworkGroup) && a.Resource == "secrets" && a.Group == "" {
		return n.ingressSecret(a)
	}
	node, ok := NodeOf(u)
	if !ok {
		return NoOpinion, "", nil
	}
	if why := n.refuse(node, &a); why != "" {
		return NoOpinion, why, nil
	}
	for i := range n.Rules {
		if ruleAllows(&n.Rules[i], &a) {
			return Allow, "", nil
		}
	}
	return NoOpinion, "", nil
}

// RulesFor implements RuleLister: what a node may do depends on its pods, and is
// not listed.
func (n *Node) RulesFor(_ context.Context, u *request.User, _ string) ([]rbacv1.PolicyRule, bool, error) {
	if _, ok := NodeOf(u); ok {
		return nil, true, errors.New("node authorizer does not support user rule resolution")
	}
	return nil, false, nil
}

// refuse says why a node may not do what system:node would allow, "" if it may.
func (n *Node) refuse(node string, a *Attributes) string {
	if !a.IsResource {
		return ""
	}
	switch a.Group + "/" + a.Resource {
	case "/secrets":
		return n.referred(node, a, "secret", func(pod *corev1.Pod, found func(string)) podRefs { return podRefs{secret: found} })
	case "/configmaps":
		return n.referred(node, a, "configmap", func(pod *corev1.Pod, found func(string)) podRefs { return podRefs{configMap: found} })
	case "/persistentvolumeclaims":
		return n.referred(node, a, "pvc", func(pod *corev1.Pod, found func(string)) podRefs { return podRefs{claim: found} })
	case "resource.k8s.io/resourceclaims":
		return n.referred(node, a, "resourceclaim", func(pod *corev1.Pod, found func(string)) podRefs { return podRefs{resourceClaim: found} })
	case "/persistentvolumes":
		return n.volume(node, a)
	case "storage.k8s.io/volumeattachments":
		if va, ok := n.Attachments.Get("", a.Name); !ok || va.Spec.NodeName != node {
			return noRelation(node, "volumeattachment", a)
		}
	case "/serviceaccounts":
		return n.account(node, a)
	case "/pods":
		return ownPods(node, a, n.Pods)
	case "/nodes":
		if a.Verb != "create" && a.Name != node {
			return fmt.Sprintf("node %q cannot %s node %q, only its own Node object", node, a.Verb, a.Name)
		}
	case "coordination.k8s.io/leases":
		if a.Namespace != corev1.NamespaceNodeLease {
			return fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		}
		if a.Verb != "create" && a.Name != node {
			return "can only access node lease with the same name as the requesting node"
		}
	case "storage.k8s.io/csinodes":
		if a.Verb != "create" && a.Name != node {
			return "can only access CSINode with the same name as the requesting node"
		}
	case "resource.k8s.io/resourceslices":
		if a.Verb == "deletecollection" && !selects(a.FieldSelector, "spec.nodeName", node) {
			return "can only access resource slices of the requesting node"
		}
	}
	return ""
}

func noRelation(node, what string, a *Attributes) string {
	if a.Namespace == "" {
		return fmt.Sprintf("no relationship found between node '%s' and this object", node)
	}
	return fmt.Sprintf("no relationship found between node '%s' and this object: %s %s/%s", node, what, a.Namespace, a.Name)
}

func (n *Node) referred(node string, a *Attributes, what string, look func(*corev1.Pod, func(string)) podRefs) string {
	if a.Name == "" {
		return fmt.Sprintf("No Object name found: node %q may read a %s only by its name", node, what)
	}
	ignore := func(string) {}
	hit := false
	n.Pods.ByIndex("spec.nodeName", node, func(pod *corev1.Pod) bool {
		if pod.Namespace != a.Namespace {
			return true
		}
		to := look(pod, func(name string) { hit = hit || name == a.Name })
		for _, f := range []*func(string){&to.secret, &to.configMap, &to.claim, &to.resourceClaim} {
			if *f == nil {
				*f = ignore
			}
		}
		visitRefs(pod, to)
		return !hit
	})
	if !hit && what == "secret" {
		hit = n.volumeSecret(node, a)
	}
	if !hit {
		return noRelation(node, what, a)
	}
	return ""
}

// eachVolume visits the persistent volumes that pods of a node use.
func (n *Node) eachVolume(node string, visit func(*corev1.PersistentVolume) bool) {
	going := true
	n.Pods.ByIndex("spec.nodeName", node, func(pod *corev1.Pod) bool {
		claim := func(name string) {
			if pvc, ok := n.Claims.Get(pod.Namespace, name); going && ok {
				if pv, ok := n.Volumes.Get("", pvc.Spec.VolumeName); ok {
					going = visit(pv)
				}
			}
		}
		ignore := func(string) {}
		visitRefs(pod, podRefs{secret: ignore, configMap: ignore, resourceClaim: ignore, claim: claim})
		return going
	})
}

func (n *Node) volume(node string, a *Attributes) string {
	hit := false
	n.eachVolume(node, func(pv *corev1.PersistentVolume) bool {
		hit = pv.Name == a.Name
		return !hit
	})
	if !hit {
		return noRelation(node, "pv", a)
	}
	return ""
}

// volumeSecret is true for a secret that a volume's CSI driver needs on the node.
func (n *Node) volumeSecret(node string, a *Attributes) bool {
	hit := false
	n.eachVolume(node, func(pv *corev1.PersistentVolume) bool {
		if csi := pv.Spec.CSI; csi != nil {
			for _, r := range []*corev1.SecretReference{csi.NodePublishSecretRef, csi.NodeStageSecretRef, csi.NodeExpandSecretRef} {
				hit = hit || r != nil && r.Name == a.Name && r.Namespace == a.Namespace
			}
		}
		return !hit
	})
	return hit
}

func (n *Node) account(node string, a *Attributes) string {
	hit := false
	n.Pods.ByIndex("spec.nodeName", node, func(pod *corev1.Pod) bool {
		hit = pod.Namespace == a.Namespace && pod.Spec.ServiceAccountName == a.Name
		return !hit
	})
	if !hit {
		return noRelation(node, "serviceaccount", a)
	}
	return ""
}

func ownPods(node string, a *Attributes, pods cache.Typed[*corev1.Pod]) string {
	switch {
	case a.Verb == "create" && a.Subresource == "": // mirror pods; admission looks at the object
	case a.Name != "":
		if pod, ok := pods.Get(a.Namespace, a.Name); ok && pod.Spec.NodeName != node {
			return fmt.Sprintf("can only access pods of the requesting node %q", node)
		}
	case a.Verb == "list" || a.Verb == "watch":
		if !selects(a.FieldSelector, "spec.nodeName", node) {
			return "can only list/watch pods with spec.nodeName field selector"
		}
	}
	return ""
}

// selects says whether a field selector asks for exactly one value of a field.
func selects(selector, name, value string) bool {
	for _, term := range strings.Split(selector, ",") {
		if term == name+"="+value || term == name+"=="+value {
			return true
		}
	}
	return false
}

func (n *Node) ingressSecret(a Attributes) (Decision, string, error) {
	if a.Name == "" || (a.Verb != "get" && a.Verb != "list" && a.Verb != "watch") {
		return NoOpinion, "a secret may be read only by its name", nil
	}
	hit := false
	n.Ingresses.Each(a.Namespace, func(i *networkingv1.Ingress) bool {
		for _, t := range i.Spec.TLS {
			hit = hit || t.SecretName == a.Name
		}
		return !hit
	})
	if !hit {
		return NoOpinion, fmt.Sprintf("no Ingress in %q names the secret %q", a.Namespace, a.Name), nil
	}
	return Allow, "", nil
}
