package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// features that a node has to declare for a pod that needs them (KEP-5328).
type features uint8

const (
	restartAllContainers features = 1 << iota
	usersOnHostNetwork
)

var featureNames = map[features]string{
	restartAllContainers: "RestartAllContainersOnContainerExits", usersOnHostNetwork: "UserNamespacesHostNetworkSupport",
}

// featuresOf what a pod needs.
func featuresOf(obj *corev1.Pod) (f features) {
	for _, list := range [][]corev1.Container{obj.Spec.InitContainers, obj.Spec.Containers} {
		for i := range list {
			if restartsAll(&list[i]) {
				f |= restartAllContainers
			}
		}
	}
	if obj.Spec.HostNetwork && obj.Spec.HostUsers != nil && !*obj.Spec.HostUsers {
		f |= usersOnHostNetwork
	}
	return f
}

func restartsAll(c *corev1.Container) bool {
	return slices.ContainsFunc(c.RestartPolicyRules, func(r corev1.ContainerRestartRule) bool {
		return r.Action == corev1.ContainerRestartRuleActionRestartAllContainers
	})
}

// declared by a node.
func declared(obj *corev1.Node) (f features) {
	for bit, name := range featureNames {
		if slices.Contains(obj.Status.DeclaredFeatures, name) {
			f |= bit
		}
	}
	return f
}
