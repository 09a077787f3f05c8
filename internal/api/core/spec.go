package core

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/proa-dev/proa/internal/api/validate"
)

// ValidatePodTemplate checks a template of pods at p ("spec.template"): its
// labels, annotations and pod spec. old is nil on create; what was bad in old
// already and is tolerated by upstream stays so.
func ValidatePodTemplate(e *validate.Errs, t, old *corev1.PodTemplateSpec, p *validate.Path) {
	validate.Labels(e, t.Labels, p.Child("labels"))
	validate.Annotations(e, t.Annotations, p.Child("annotations"))
	var was *corev1.PodSpec
	var annotations map[string]string
	if old != nil {
		was, annotations = &old.Spec, old.Annotations
	}
	podAnnotations(e, t.Annotations, annotations, &t.Spec, p.Child("annotations"))
	c := specCheck{e: e, spec: &t.Spec, old: was}
	c.run(p.Child("spec"))
	annotationsAgree(e, t.Annotations, &t.Spec, p.Child("spec"))
	if len(t.Spec.EphemeralContainers) > 0 {
		e.Forbidden(p.Child("spec").Child("ephemeralContainers"), "ephemeral containers not allowed in pod template")
	}
}

// ResetPodTemplate empties the fields that v1.36 knows, but has switched off.
func ResetPodTemplate(t *corev1.PodTemplateSpec) { dropOff(&t.Spec) }

// specCheck walks one pod spec, a pod's or a template's.
type specCheck struct {
	e    *validate.Errs
	spec *corev1.PodSpec
	old  *corev1.PodSpec    // nil on create
	meta *metav1.ObjectMeta // of the pod, nil for a template
	pod  bool               // a pod, not a template

	hostUsers bool // shares the host's user namespace
	bad       map[string]bool
	volumes   map[string]*corev1.Volume // made when there are many
}

func (c *specCheck) run(p *validate.Path) {
	e, s := c.e, c.spec
	c.hostUsers = s.HostUsers == nil || *s.HostUsers
	if s.TerminationGracePeriodSeconds == nil {
		e.Required(p.Child("terminationGracePeriodSeconds"), "")
	}
	c.checkVolumes(p.Child("volumes"))
	c.resourceClaims(p.Child("resourceClaims"))
	c.regular(p.Child("containers"))
	c.inits(p.Child("initContainers"))
	c.ephemeral(p.Child("ephemeralContainers"))
	c.podResources(p.Child("resources"))
	c.hostNetworkPorts(p.Child("containers"))

	validate.RequiredOneOf(e, p.Child("restartPolicy"), s.RestartPolicy, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	validate.RequiredOneOf(e, p.Child("dnsPolicy"), s.DNSPolicy, corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	validate.Labels(e, s.NodeSelector, p.Child("nodeSelector"))
	c.podSecurity(p.Child("securityContext"))
	c.tolerated(func(e *validate.Errs, s *corev1.PodSpec) { affinity(e, s.Affinity, p.Child("affinity")) }, s.Affinity != nil)
	dnsConfig(e, s, p.Child("dnsConfig"))
	for i, g := range s.ReadinessGates {
		validate.LabelKey(e, string(g.ConditionType), p.Child("readinessGates").Index(i).Child("conditionType"))
	}
	schedulingGates(e, s.SchedulingGates, p.Child("schedulingGates"))
	c.tolerated(func(e *validate.Errs, s *corev1.PodSpec) {
		spreadConstraints(e, s.TopologySpreadConstraints, p.Child("topologySpreadConstraints"))
	}, len(s.TopologySpreadConstraints) > 0)
	c.hostProcess(p)
	c.userNamespace(p)
	c.hostnameOverride(p.Child("hostnameOverride"))
	subdomain(e, s.ServiceAccountName, p.Child("serviceAccountName"))
	subdomain(e, s.NodeName, p.Child("nodeName"))
	if d := s.ActiveDeadlineSeconds; d != nil && (*d < 1 || *d > math.MaxInt32) {
		e.Invalid(p.Child("activeDeadlineSeconds"), *d, validation.InclusiveRangeError(1, math.MaxInt32))
	}
	if s.Hostname != "" {
		label(e, s.Hostname, p.Child("hostname"))
	}
	if s.Subdomain != "" {
		label(e, s.Subdomain, p.Child("subdomain"))
	}
	c.tolerated(func(e *validate.Errs, s *corev1.PodSpec) { tolerations(e, s.Tolerations, p.Child("tolerations")) }, len(s.Tolerations) > 0)
	for i := range s.HostAliases {
		at := p.Child("hostAliases").Index(i)
		ip(e, s.HostAliases[i].IP, nil, at.Child("ip"))
		for j, name := range s.HostAliases[i].Hostnames {
			requiredSubdomain(e, name, at.Child("hostnames").Index(j))
		}
	}
	subdomain(e, s.PriorityClassName, p.Child("priorityClassName"))
	if s.RuntimeClassName != nil {
		requiredSubdomain(e, *s.RuntimeClassName, p.Child("runtimeClassName"))
	}
	if s.PreemptionPolicy != nil {
		validate.RequiredOneOf(e, p.Child("preemptionPolicy"), *s.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	if s.Overhead != nil {
		c.resources(&corev1.ResourceRequirements{Limits: s.Overhead}, false, p.Child("overhead"))
	}
	c.os(p)
	c.fileKeyVolumes(p)
}

// tolerated runs a check; what it finds is forgotten if the old spec fails it
// too, so that an object from before a rule can still be updated.
func (c *specCheck) tolerated(check func(*validate.Errs, *corev1.PodSpec), needed bool) {
	if !needed {
		return
	}
	var found, before validate.Errs
	check(&found, c.spec)
	if found.Len() == 0 {
		return
	}
	if c.old != nil {
		check(&before, c.old)
	}
	if before.Len() == 0 {
		c.e.Add(found.List()...)
	}
}

// eachContainer visits all containers: init, regular, ephemeral.
func eachContainer(s *corev1.PodSpec, visit func(kind string, i int, c *corev1.Container)) {
	for i := range s.InitContainers {
		visit("initContainers", i, &s.InitContainers[i])
	}
	for i := range s.Containers {
		visit("containers", i, &s.Containers[i])
	}
	for i := range s.EphemeralContainers {
		visit("ephemeralContainers", i, (*corev1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon))
	}
}

// On the host's network, a pod's host port is its container port; a template
// may leave it to the pod.
func (c *specCheck) hostNetworkPorts(p *validate.Path) {
	if !c.spec.HostNetwork {
		return
	}
	for i := range c.spec.Containers {
		for j, port := range c.spec.Containers[i].Ports {
			if (c.pod || port.HostPort != 0) && port.HostPort != port.ContainerPort {
				c.e.Invalid(p.Index(i).Child("ports").Index(j).Child("hostPort"), port.HostPort, "must match `containerPort` when `hostNetwork` is true")
			}
		}
	}
}

func (c *specCheck) hostnameOverride(p *validate.Path) {
	s := c.spec
	if s.HostnameOverride == nil {
		return
	}
	if s.SetHostnameAsFQDN != nil && *s.SetHostnameAsFQDN {
		c.e.Forbidden(p, "may not be specified when setHostnameAsFQDN is true")
	}
	if s.HostNetwork {
		c.e.Forbidden(p, "may not be specified when hostNetwork is true")
	}
	if len(*s.HostnameOverride) > 64 {
		c.e.TooLong(p, 64)
	}
	requiredSubdomain(c.e, *s.HostnameOverride, p)
}

func (c *specCheck) resourceClaims(p *validate.Path) {
	var names seen[string]
	for i := range c.spec.ResourceClaims {
		claim, at := &c.spec.ResourceClaims[i], p.Index(i)
		if c.meta != nil {
			if _, mirror := c.meta.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
				c.e.Forbidden(validate.Root(""), "static pods do not support resource claims")
				continue
			}
		}
		switch {
		case claim.Name == "":
			c.e.Required(at.Child("name"), "")
		case !names.add(claim.Name):
			c.e.Duplicate(at.Child("name"), claim.Name)
		default:
			label(c.e, claim.Name, at.Child("name"))
		}
		if claim.ResourceClaimName != nil && claim.ResourceClaimTemplateName != nil {
			c.e.Invalid(at, *claim, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
		}
		if claim.ResourceClaimName == nil && claim.ResourceClaimTemplateName == nil {
			c.e.Invalid(at, *claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")
		}
		if claim.ResourceClaimName != nil {
			requiredSubdomain(c.e, *claim.ResourceClaimName, at.Child("resourceClaimName"))
		}
		if claim.ResourceClaimTemplateName != nil {
			requiredSubdomain(c.e, *claim.ResourceClaimTemplateName, at.Child("resourceClaimTemplateName"))
		}
	}
}

// dropOff empties fields whose feature is off in v1.36 by default. It writes only where
// there is one: what came from the stored object is others' to read.
func dropOff(s *corev1.PodSpec) {
	if s.SchedulingGroup != nil {
		s.SchedulingGroup = nil
	}
	eachContainer(s, func(_ string, _ int, c *corev1.Container) {
		if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
			c.Lifecycle.StopSignal = nil
			if *c.Lifecycle == (corev1.Lifecycle{}) {
				c.Lifecycle = nil
			}
		}
	})
	for i := range s.Volumes {
		if projected := s.Volumes[i].Projected; projected != nil {
			for j := range projected.Sources {
				if source := &projected.Sources[j]; source.ClusterTrustBundle != nil || source.PodCertificate != nil {
					source.ClusterTrustBundle, source.PodCertificate = nil, nil
				}
			}
		}
	}
}
