package pod

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
)

// Sidecar says whether an init container keeps running beside the others.
func Sidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

// Restarts says whether a container that ended with a code is run again.
func Restarts(pod *v1.Pod, c *v1.Container, code int32) bool {
	if action, ok := rule(c, code); ok {
		return action == v1.ContainerRestartRuleActionRestart || action == v1.ContainerRestartRuleActionRestartAllContainers
	}
	policy := pod.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = v1.RestartPolicy(*c.RestartPolicy)
	}
	switch policy {
	case v1.RestartPolicyNever:
		return false
	case v1.RestartPolicyOnFailure:
		return code != 0
	}
	return true
}

// rule of the container that an exit code falls under (KEP-5307).
func rule(c *v1.Container, code int32) (v1.ContainerRestartRuleAction, bool) {
	for _, r := range c.RestartPolicyRules {
		if r.ExitCodes == nil {
			continue
		}
		in := slices.Contains(r.ExitCodes.Values, code)
		if in == (r.ExitCodes.Operator == v1.ContainerRestartRuleOnExitCodesOpIn) {
			return r.Action, true
		}
	}
	return "", false
}

// initRestarts: an init container that failed is run again as regular ones are,
// one that succeeded is not.
func initRestarts(pod *v1.Pod, c *v1.Container, code int32) bool {
	return code != 0 && Restarts(pod, c, code)
}

// Hash of what makes a running container outdated when it changes: its image.
func Hash(c *v1.Container) string {
	b, _ := json.Marshal(struct {
		Name  string `json:"name,omitempty"`
		Image string `json:"image,omitempty"`
	}{c.Name, c.Image})
	h := fnv.New32a()
	h.Write(b)
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

// Find a container of any sort by name.
func Find(pod *v1.Pod, name string) *v1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if e := &pod.Spec.EphemeralContainers[i]; e.Name == name {
			c := v1.Container(e.EphemeralContainerCommon)
			return &c
		}
	}
	return nil
}

// String names a pod in messages: "name_namespace(uid)".
func String(p *v1.Pod) string { return fmt.Sprintf("%s_%s(%s)", p.Name, p.Namespace, p.UID) }
