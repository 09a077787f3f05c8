package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/proa-dev/proa/internal/api/validate"
)

func podStatus(e *validate.Errs, p, old *corev1.Pod) {
	at := validate.Root("status")
	for i := range p.Status.Conditions {
		c, at := &p.Status.Conditions[i], at.Child("conditions").Index(i)
		if c.ObservedGeneration < 0 {
			e.Invalid(at.Child("observedGeneration"), c.ObservedGeneration, "must be a non-negative integer")
		}
		switch c.Type {
		case corev1.PodScheduled, corev1.PodReady, corev1.PodInitialized:
		default:
			validate.LabelKey(e, string(c.Type), at.Child("Type"))
		}
	}
	if p.Spec.NodeName != old.Spec.NodeName {
		e.Forbidden(at.Child("nodeName"), "may not be changed directly")
	}
	if n := p.Status.NominatedNodeName; n != "" && n != old.Status.NominatedNodeName {
		requiredSubdomain(e, n, at.Child("nominatedNodeName"))
		if old.Spec.NodeName != "" {
			e.Forbidden(at.Child("nominatedNodeName"), "may not be set on pods that are already bound to a node")
		}
	}
	if p.Status.ObservedGeneration < 0 {
		e.Invalid(at.Child("observedGeneration"), p.Status.ObservedGeneration, "must be a non-negative integer")
	}
	if p.Status.QOSClass != old.Status.QOSClass {
		e.Invalid(at.Child("qosClass"), p.Status.QOSClass, validate.IsImmutable)
	}
	if !restartsAll(&old.Spec) {
		stayEnded(e, p.Status.ContainerStatuses, old.Status.ContainerStatuses, old.Spec.Containers, &old.Spec, at.Child("containerStatuses"))
		stayEnded(e, p.Status.InitContainerStatuses, old.Status.InitContainerStatuses, old.Spec.InitContainers, &old.Spec, at.Child("initContainerStatuses"))
	}
	stayEnded(e, p.Status.EphemeralContainerStatuses, old.Status.EphemeralContainerStatuses, nil, &old.Spec, at.Child("ephemeralContainerStatuses"))
	claimStatuses(e, p, at)

	ips := make([]string, 0, 2)
	for _, x := range p.Status.PodIPs {
		ips = append(ips, x.IP)
	}
	was := make([]string, 0, 2)
	for _, x := range old.Status.PodIPs {
		was = append(was, x.IP)
	}
	addresses(e, ips, was, p.Status.PodIPs, at.Child("podIPs"))

	ips, was = ips[:0], was[:0]
	for _, x := range p.Status.HostIPs {
		ips = append(ips, x.IP)
	}
	for _, x := range old.Status.HostIPs {
		was = append(was, x.IP)
	}
	if len(ips) > 0 && ips[0] != p.Status.HostIP {
		e.Invalid(at.Child("hostIPs").Index(0).Child("ip"), ips[0], "must be equal to `hostIP`")
	}
	addresses(e, ips, was, p.Status.HostIPs, at.Child("hostIPs"))

	containerStatuses(e, p.Status.ContainerStatuses, p.Spec.Containers, p.Spec.OS, at.Child("containerStatuses"))
	containerStatuses(e, p.Status.InitContainerStatuses, p.Spec.InitContainers, p.Spec.OS, at.Child("initContainerStatuses"))
	containerStatuses(e, p.Status.EphemeralContainerStatuses, nil, p.Spec.OS, at.Child("ephemeralContainerStatuses"))
	for i := range p.Status.EphemeralContainerStatuses {
		if len(p.Status.EphemeralContainerStatuses[i].AllocatedResourcesStatus) > 0 {
			e.Forbidden(at.Child("ephemeralContainerStatuses").Index(i).Child("allocatedResourcesStatus"), "must not be specified in container status")
		}
	}
}

// addresses: at most one of each IP family.
func addresses(e *validate.Errs, ips, old []string, value any, p *validate.Path) {
	for i, s := range ips {
		known := false
		for _, o := range old {
			known = known || o == s
		}
		if !known {
			ip(e, s, nil, p.Index(i))
		}
	}
	if len(ips) > 1 {
		dual, err := netutils.IsDualStackIPStrings(ips)
		if err != nil {
			e.Add(field.InternalError(p.Field(), fmt.Errorf("failed to check for dual stack with error:%v", err)))
		}
		if !dual || len(ips) > 2 {
			e.Invalid(p, value, "may specify no more than one IP for each IP family")
		}
	}
}

func restartsAll(s *corev1.PodSpec) bool {
	for _, list := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range list {
			for _, rule := range list[i].RestartPolicyRules {
				if rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
					return true
				}
			}
		}
	}
	return false
}

// stayEnded: a container that has ended and is not to be started again is not
// reported as running.
func stayEnded(e *validate.Errs, now, old []corev1.ContainerStatus, containers []corev1.Container, s *corev1.PodSpec, p *validate.Path) {
	for i := range old {
		ended := old[i].State.Terminated
		if ended == nil {
			continue
		}
		for j := range now {
			if now[j].Name != old[i].Name || now[j].State.Terminated != nil {
				continue
			}
			again := false
			for k := range containers {
				if containers[k].Name == old[i].Name {
					again = restarts(&containers[k], s, ended.ExitCode)
				}
			}
			if !again {
				e.Forbidden(p.Index(i).Child("state"), "may not be transitioned to non-terminated state")
			}
			break
		}
	}
}

// restarts says whether a container that ended with this code is started again.
func restarts(c *corev1.Container, s *corev1.PodSpec, code int32) bool {
	policy := string(s.RestartPolicy)
	if c.RestartPolicy != nil {
		for _, rule := range c.RestartPolicyRules {
			if rule.ExitCodes == nil {
				continue
			}
			in := false
			for _, v := range rule.ExitCodes.Values {
				in = in || v == code
			}
			if in == (rule.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
				return true // both actions restart
			}
		}
		policy = string(*c.RestartPolicy)
	}
	switch policy {
	case string(corev1.RestartPolicyNever):
		return false
	case string(corev1.RestartPolicyOnFailure):
		return code != 0
	}
	return true
}

func claimStatuses(e *validate.Errs, p *corev1.Pod, at *validate.Path) {
	var names seen[string]
	for i := range p.Status.ResourceClaimStatuses {
		s, at := &p.Status.ResourceClaimStatuses[i], at.Child("resourceClaimStatuses").Index(i)
		found := false
		for _, c := range p.Spec.ResourceClaims {
			found = found || c.Name == s.Name
		}
		if !found {
			e.Invalid(at.Child("name"), s.Name, "must match the name of an entry in `spec.resourceClaims`")
		}
		if !names.add(s.Name) {
			e.Duplicate(at.Child("name"), s.Name)
		}
		if s.ResourceClaimName != nil {
			requiredSubdomain(e, *s.ResourceClaimName, at.Child("resourceClaimName"))
		}
	}
	x := p.Status.ExtendedResourceClaimStatus
	if x == nil {
		return
	}
	at = at.Child("extendedResourceClaimStatus")
	maps := at.Child("requestMappings")
	if len(x.RequestMappings) == 0 {
		e.Required(maps, "at least one request mapping is required")
	}
	var mapped seen[corev1.ContainerExtendedResourceRequest]
	for i, m := range x.RequestMappings {
		var ctr *corev1.Container
		for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
			for j := range list {
				if list[j].Name == m.ContainerName {
					ctr = &list[j]
				}
			}
		}
		if ctr == nil {
			e.Invalid(maps.Index(i).Child("containerName"), m.ContainerName, "must match the name of an entry in spec.initContainers.name or spec.containers.name")
		} else if _, ok := ctr.Resources.Requests[corev1.ResourceName(m.ResourceName)]; !ok {
			e.Invalid(maps.Index(i).Child("resourceName"), m.ResourceName, "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests")
		}
		label(e, m.RequestName, at.Child("requestName"))
		if !mapped.add(m) {
			e.Duplicate(maps.Index(i).Child("containerName"), m.ContainerName)
			e.Duplicate(maps.Index(i).Child("resourceName"), m.ResourceName)
			e.Duplicate(maps.Index(i).Child("requestName"), m.RequestName)
		}
	}
	if x.ResourceClaimName == "" {
		e.Required(at.Child("resourceClaimName"), "")
	} else {
		requiredSubdomain(e, x.ResourceClaimName, at.Child("resourceClaimName"))
	}
}

func containerStatuses(e *validate.Errs, list []corev1.ContainerStatus, containers []corev1.Container, os *corev1.PodOS, p *validate.Path) {
	for i := range list {
		s, at := &list[i], p.Index(i)
		if s.User != nil && s.User.Linux != nil {
			user, at := s.User.Linux, at.Child("user").Child("linux")
			if os != nil && os.Name == corev1.Windows {
				e.Forbidden(at, "cannot be set for a windows pod")
			} else {
				uid := user.UID
				userID(e, &uid, at.Child("uid"))
				groupID(e, user.GID, at.Child("gid"))
				for j, gid := range user.SupplementalGroups {
					groupID(e, gid, at.Child("supplementalGroups").Index(j))
				}
			}
		}
		for j := range s.AllocatedResourcesStatus {
			allocated(e, &s.AllocatedResourcesStatus[j], s.Name, containers, at.Child("allocatedResourcesStatus").Index(j))
		}
	}
}

// allocated checks the health of a container's devices (KEP-4680).
func allocated(e *validate.Errs, a *corev1.ResourceStatus, name string, containers []corev1.Container, p *validate.Path) {
	for i := range containers {
		c := &containers[i]
		if c.Name != name {
			continue
		}
		_, found := c.Resources.Requests[a.Name]
		why := "must match one of the container's resource requests"
		if strings.HasPrefix(string(a.Name), "claim:") {
			found, why = false, "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty"
			for _, claim := range c.Resources.Claims {
				full := "claim:" + claim.Name
				if claim.Request != "" {
					full += "/" + claim.Request
				}
				found = found || full == string(a.Name)
			}
		}
		if !found {
			e.Invalid(p.Child("name"), a.Name, why)
		}
		break
	}
	var ids seen[corev1.ResourceID]
	for i := range a.Resources {
		r, at := &a.Resources[i], p.Child("resources").Index(i)
		validate.OneOf(e, at.Child("health"), r.Health, corev1.ResourceHealthStatusHealthy, corev1.ResourceHealthStatusUnhealthy, corev1.ResourceHealthStatusUnknown)
		if r.Message != nil {
			if *r.Message == "" {
				e.Required(at.Child("message"), "must be non-empty if specified")
			} else if len(*r.Message) > corev1.ResourceHealthMessageMaxLength {
				e.TooLong(at.Child("message"), corev1.ResourceHealthMessageMaxLength)
			}
		}
		if !ids.add(r.ResourceID) {
			e.Duplicate(at.Child("resourceID"), r.ResourceID)
		}
	}
}
