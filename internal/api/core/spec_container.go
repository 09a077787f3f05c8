package core

import (
	"reflect"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/api/validate"
)

func (c *specCheck) regular(p *validate.Path) {
	if len(c.spec.Containers) == 0 {
		c.e.Required(p, "")
		return
	}
	var names seen[string]
	var ports seen[hostPort]
	for i := range c.spec.Containers {
		ctr, at := &c.spec.Containers[i], p.Index(i)
		c.container(ctr, at)
		if !names.add(ctr.Name) {
			c.e.Duplicate(at.Child("name"), ctr.Name)
		}
		c.hooks(ctr, at)
		c.restart(ctr, at)
		if c.pod {
			trimmedImage(c.e, ctr.Image, at)
		}
	}
	for i := range c.spec.Containers {
		hostPortConflicts(c.e, &c.spec.Containers[i], &ports, p.Index(i))
	}
}

func (c *specCheck) inits(p *validate.Path) {
	if len(c.spec.InitContainers) == 0 {
		return
	}
	var names seen[string]
	for i := range c.spec.Containers {
		names.add(c.spec.Containers[i].Name)
	}
	for i := range c.spec.InitContainers {
		ctr, at := &c.spec.InitContainers[i], p.Index(i)
		c.container(ctr, at)
		c.restart(ctr, at)
		if names.has(ctr.Name) {
			c.e.Duplicate(at.Child("name"), ctr.Name)
		} else if ctr.Name != "" {
			names.add(ctr.Name)
		}
		var ports seen[hostPort]
		// Upstream checks a list of this one container, hence the index.
		hostPortConflicts(c.e, ctr, &ports, p.Index(0))
		sidecar := isSidecar(ctr)
		if sidecar {
			c.hooks(ctr, at)
		} else {
			const why = "may not be set for init containers without restartPolicy=Always"
			if ctr.Lifecycle != nil {
				c.e.Forbidden(at.Child("lifecycle"), why)
			}
			if ctr.LivenessProbe != nil {
				c.e.Forbidden(at.Child("livenessProbe"), why)
			}
			if ctr.ReadinessProbe != nil {
				c.e.Forbidden(at.Child("readinessProbe"), why)
			}
			if ctr.StartupProbe != nil {
				c.e.Forbidden(at.Child("startupProbe"), why)
			}
			for j, rule := range ctr.ResizePolicy {
				if rule.RestartPolicy == corev1.RestartContainer && !resizeRestartsInit(c.old) {
					c.e.Invalid(at.Child("resizePolicy").Index(j).Child("restartPolicy"), rule.RestartPolicy, "must not be set to 'RestartContainer' for non-sidecar initContainers")
				}
			}
		}
		if c.pod {
			trimmedImage(c.e, ctr.Image, at)
		}
	}
}

func resizeRestartsInit(s *corev1.PodSpec) bool {
	if s == nil {
		return false
	}
	for i := range s.InitContainers {
		for _, rule := range s.InitContainers[i].ResizePolicy {
			if rule.RestartPolicy == corev1.RestartContainer && !isSidecar(&s.InitContainers[i]) {
				return true
			}
		}
	}
	return false
}

// An ephemeral container has no ports, probes, hooks or resources: nothing may
// come to rely on it.
func (c *specCheck) ephemeral(p *validate.Path) {
	if len(c.spec.EphemeralContainers) == 0 {
		return
	}
	var names, targets seen[string]
	for _, list := range [][]corev1.Container{c.spec.Containers, c.spec.InitContainers} {
		for i := range list {
			names.add(list[i].Name)
			targets.add(list[i].Name)
		}
	}
	for i := range c.spec.EphemeralContainers {
		ec, at := &c.spec.EphemeralContainers[i], p.Index(i)
		ctr := (*corev1.Container)(&ec.EphemeralContainerCommon)
		c.container(ctr, at)
		trimmedImage(c.e, ctr.Image, at)
		if !names.add(ec.Name) {
			c.e.Duplicate(at.Child("name"), ec.Name)
		}
		if ec.TargetContainerName != "" && !targets.has(ec.TargetContainerName) {
			c.e.NotFound(at.Child("targetContainerName"), ec.TargetContainerName)
		}
		const why = "cannot be set for an Ephemeral Container"
		for _, f := range []struct {
			name string
			set  bool
		}{
			{"ports", ec.Ports != nil},
			{"resources", !reflect.DeepEqual(ec.Resources, corev1.ResourceRequirements{})},
			{"resizePolicy", ec.ResizePolicy != nil},
			{"restartPolicy", ec.RestartPolicy != nil},
			{"restartPolicyRules", ec.RestartPolicyRules != nil},
			{"livenessProbe", ec.LivenessProbe != nil},
			{"readinessProbe", ec.ReadinessProbe != nil},
			{"startupProbe", ec.StartupProbe != nil},
			{"lifecycle", ec.Lifecycle != nil},
		} {
			if f.set {
				c.e.Forbidden(at.Child(f.name), why)
			}
		}
		for j, m := range ec.VolumeMounts {
			if m.SubPath != "" {
				c.e.Forbidden(at.Child("volumeMounts").Index(j).Child("subPath"), why)
			}
			if m.SubPathExpr != "" {
				c.e.Forbidden(at.Child("volumeMounts").Index(j).Child("subPathExpr"), why)
			}
		}
	}
}

// container checks what all kinds of containers have.
func (c *specCheck) container(ctr *corev1.Container, p *validate.Path) {
	e := c.e
	if ctr.Name == "" {
		e.Required(p.Child("name"), "")
	} else {
		label(e, ctr.Name, p.Child("name"))
	}
	if ctr.Image == "" {
		e.Required(p.Child("image"), "")
	}
	validate.RequiredOneOf(e, p.Child("terminationMessagePolicy"), ctr.TerminationMessagePolicy, corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	containerPorts(e, ctr.Ports, p.Child("ports"))
	c.env(ctr.Env, p.Child("env"))
	envFrom(e, ctr.EnvFrom, p.Child("envFrom"))
	c.mounts(ctr, p.Child("volumeMounts"))
	c.devices(ctr, p.Child("volumeDevices"))
	pullPolicies(e, ctr.ImagePullPolicy, p.Child("imagePullPolicy"))
	c.resources(&ctr.Resources, false, p.Child("resources"))
	c.resizePolicy(ctr.ResizePolicy, p.Child("resizePolicy"))
	c.security(ctr.SecurityContext, p.Child("securityContext"))
}

func trimmedImage(e *validate.Errs, image string, p *validate.Path) {
	if len(image) != len(strings.TrimSpace(image)) {
		e.Invalid(p.Child("image"), image, "must not have leading or trailing whitespace")
	}
}

func pullPolicies(e *validate.Errs, v corev1.PullPolicy, p *validate.Path) {
	validate.RequiredOneOf(e, p, v, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
}

func containerPorts(e *validate.Errs, ports []corev1.ContainerPort, p *validate.Path) {
	var names seen[string]
	for i := range ports {
		port, at := &ports[i], p.Index(i)
		if port.Name != "" {
			n := e.Len()
			validate.PortName(e, port.Name, at.Child("name"))
			if e.Len() == n && !names.add(port.Name) {
				e.Duplicate(at.Child("name"), port.Name)
			}
		}
		if port.ContainerPort == 0 {
			e.Required(at.Child("containerPort"), "")
		} else {
			validate.Port(e, port.ContainerPort, at.Child("containerPort"))
		}
		if port.HostPort != 0 {
			validate.Port(e, port.HostPort, at.Child("hostPort"))
		}
		protocol(e, port.Protocol, at.Child("protocol"))
	}
}

func protocol(e *validate.Errs, v corev1.Protocol, p *validate.Path) {
	validate.RequiredOneOf(e, p, v, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
}

type hostPort struct {
	protocol corev1.Protocol
	ip       string
	port     int32
}

func hostPortConflicts(e *validate.Errs, ctr *corev1.Container, ports *seen[hostPort], p *validate.Path) {
	for i := range ctr.Ports {
		port := &ctr.Ports[i]
		if port.HostPort != 0 && !ports.add(hostPort{port.Protocol, port.HostIP, port.HostPort}) {
			e.Duplicate(p.Child("ports").Index(i).Child("hostPort"), string(port.Protocol)+"/"+port.HostIP+"/"+strconv.Itoa(int(port.HostPort)))
		}
	}
}

// restart checks a container's own restart policy and rules (KEP-5307).
func (c *specCheck) restart(ctr *corev1.Container, p *validate.Path) {
	if ctr.RestartPolicy == nil {
		if len(ctr.RestartPolicyRules) == 0 {
			return
		}
		c.e.Required(p.Child("restartPolicy"), "must specify restartPolicy when restart rules are used")
	} else {
		validate.OneOf(c.e, p.Child("restartPolicy"), *ctr.RestartPolicy, corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	}
	rules := p.Child("restartPolicyRules")
	if n := len(ctr.RestartPolicyRules); n > 20 {
		c.e.TooMany(rules, n, 20)
	}
	for i := range ctr.RestartPolicyRules {
		rule, at := &ctr.RestartPolicyRules[i], rules.Index(i)
		validate.OneOf(c.e, at.Child("action"), rule.Action, corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)
		if rule.ExitCodes == nil {
			c.e.Required(at.Child("exitCodes"), "must be specified")
			continue
		}
		codes := at.Child("exitCodes")
		validate.OneOf(c.e, codes.Child("operator"), rule.ExitCodes.Operator, corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)
		if n := len(rule.ExitCodes.Values); n > 255 {
			c.e.TooMany(codes.Child("values"), n, 255)
		}
	}
}

func (c *specCheck) resizePolicy(rules []corev1.ContainerResizePolicy, p *validate.Path) {
	var names seen[corev1.ResourceName]
	for i, rule := range rules {
		if !names.add(rule.ResourceName) {
			c.e.Duplicate(p.Index(i), rule.ResourceName)
		}
		validate.RequiredOneOf(c.e, p, rule.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)
		validate.RequiredOneOf(c.e, p, rule.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)
		if c.spec.RestartPolicy == corev1.RestartPolicyNever && rule.RestartPolicy != corev1.NotRequired {
			c.e.Invalid(p, rule.RestartPolicy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'")
		}
	}
}

func isSidecar(ctr *corev1.Container) bool {
	return ctr.RestartPolicy != nil && *ctr.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
