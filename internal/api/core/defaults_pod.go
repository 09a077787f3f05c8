package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	podresource "k8s.io/component-helpers/resource"

	"github.com/proa-dev/proa/internal/api/defaults"
)

// DefaultPodTemplate fills in what a template leaves out, and takes over what it
// says in the manner of older versions. Some defaults of a
// pod (requests from limits, host ports, enableServiceLinks) are made when the
// pod itself is, and not here.
func DefaultPodTemplate(t *corev1.PodTemplateSpec) {
	dropOldAnnotations(t.Annotations)
	DefaultPodSpec(&t.Spec)
}

// DefaultPodSpec fills in what every pod spec gets, a pod's or a template's.
func DefaultPodSpec(s *corev1.PodSpec) {
	defaults.Zero(&s.DNSPolicy, corev1.DNSClusterFirst)
	defaults.Zero(&s.RestartPolicy, corev1.RestartPolicyAlways)
	defaults.Zero(&s.SchedulerName, corev1.DefaultSchedulerName)
	if s.SecurityContext == nil {
		s.SecurityContext = &corev1.PodSecurityContext{}
	}
	defaults.Ptr(&s.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	// serviceAccount is serviceAccountName's old name; both are always given.
	defaults.Zero(&s.ServiceAccountName, s.DeprecatedServiceAccount)
	s.DeprecatedServiceAccount = s.ServiceAccountName
	for i := range s.Volumes {
		defaultVolume(&s.Volumes[i])
	}
	for i := range s.InitContainers {
		defaultContainer(&s.InitContainers[i])
	}
	for i := range s.Containers {
		defaultContainer(&s.Containers[i])
	}
	for i := range s.EphemeralContainers {
		defaultContainer((*corev1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon))
	}
	roundUp(s.Overhead)
	if s.Resources != nil {
		roundUp(s.Resources.Limits)
		roundUp(s.Resources.Requests)
	}
}

func defaultPod(p *corev1.Pod) {
	s := &p.Spec
	requestsFromLimits(s.Containers)
	requestsFromLimits(s.InitContainers)
	defaultPodResources(p)
	defaults.Ptr(&s.EnableServiceLinks, corev1.DefaultEnableServiceLinks)
	if s.HostNetwork {
		hostPorts(s.Containers)
		hostPorts(s.InitContainers)
	}
	DefaultPodSpec(s)
	dropOldAnnotations(p.Annotations)
	if g := s.TerminationGracePeriodSeconds; *g < 0 {
		one := int64(1)
		s.TerminationGracePeriodSeconds = &one
	}
	// podIP is the first of podIPs; of an old kubelet it is the only one.
	if st := &p.Status; st.PodIP != "" && (len(st.PodIPs) == 0 || st.PodIPs[0].IP != st.PodIP) {
		st.PodIPs = []corev1.PodIP{{IP: st.PodIP}}
	} else if len(st.PodIPs) > 0 {
		st.PodIP = st.PodIPs[0].IP
	}

	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for i := range list {
			roundUp(list[i].AllocatedResources)
			if r := list[i].Resources; r != nil {
				roundUp(r.Limits)
				roundUp(r.Requests)
			}
		}
	}
	roundUp(p.Status.AllocatedResources)
	if r := p.Status.Resources; r != nil {
		roundUp(r.Limits)
		roundUp(r.Requests)
	}
}

// Init containers were annotations once.
func dropOldAnnotations(annotations map[string]string) {
	if len(annotations) == 0 {
		return
	}
	for _, k := range [...]string{"pod.beta.kubernetes.io/init-containers", "pod.alpha.kubernetes.io/init-containers",
		"pod.beta.kubernetes.io/init-container-statuses", "pod.alpha.kubernetes.io/init-container-statuses"} {
		delete(annotations, k)
	}
}

func defaultContainer(c *corev1.Container) {
	if c.ImagePullPolicy == "" {
		c.ImagePullPolicy = pullPolicy(c.Image)
	}
	defaults.Zero(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	defaults.Zero(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	for i := range c.Ports {
		defaults.Zero(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil {
			defaultFieldRef(from.FieldRef)
			if from.FileKeyRef != nil {
				defaults.Ptr(&from.FileKeyRef.Optional, false)
			}
		}
	}
	roundUp(c.Resources.Limits)
	roundUp(c.Resources.Requests)
	defaultProbe(c.LivenessProbe)
	defaultProbe(c.ReadinessProbe)
	defaultProbe(c.StartupProbe)
	if l := c.Lifecycle; l != nil {
		if l.PostStart != nil {
			defaultHTTPGet(l.PostStart.HTTPGet)
		}
		if l.PreStop != nil {
			defaultHTTPGet(l.PreStop.HTTPGet)
		}
	}
}

func defaultProbe(p *corev1.Probe) {
	if p == nil {
		return
	}
	defaults.Zero(&p.TimeoutSeconds, 1)
	defaults.Zero(&p.PeriodSeconds, 10)
	defaults.Zero(&p.SuccessThreshold, 1)
	defaults.Zero(&p.FailureThreshold, 3)
	defaultHTTPGet(p.HTTPGet)
	if p.GRPC != nil {
		defaults.Ptr(&p.GRPC.Service, "")
	}
}

func defaultHTTPGet(a *corev1.HTTPGetAction) {
	if a != nil {
		defaults.Zero(&a.Path, "/")
		defaults.Zero(&a.Scheme, corev1.URISchemeHTTP)
	}
}

func defaultFieldRef(r *corev1.ObjectFieldSelector) {
	if r != nil {
		defaults.Zero(&r.APIVersion, "v1")
	}
}

func defaultDownward(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		defaultFieldRef(items[i].FieldRef)
	}
}

func defaultVolume(v *corev1.Volume) {
	s := &v.VolumeSource
	if *s == (corev1.VolumeSource{}) {
		s.EmptyDir = &corev1.EmptyDirVolumeSource{}
		return
	}
	if s.HostPath != nil {
		defaults.Ptr(&s.HostPath.Type, corev1.HostPathUnset)
	}
	if s.Secret != nil {
		defaults.Ptr(&s.Secret.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	}
	if s.ConfigMap != nil {
		defaults.Ptr(&s.ConfigMap.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	}
	if s.DownwardAPI != nil {
		defaults.Ptr(&s.DownwardAPI.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		defaultDownward(s.DownwardAPI.Items)
	}
	if s.Projected != nil {
		defaults.Ptr(&s.Projected.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
		for i := range s.Projected.Sources {
			src := &s.Projected.Sources[i]
			if src.DownwardAPI != nil {
				defaultDownward(src.DownwardAPI.Items)
			}
			if src.ServiceAccountToken != nil {
				defaults.Ptr(&src.ServiceAccountToken.ExpirationSeconds, 3600)
			}
		}
	}
	if s.Ephemeral != nil && s.Ephemeral.VolumeClaimTemplate != nil {
		DefaultPersistentVolumeClaimSpec(&s.Ephemeral.VolumeClaimTemplate.Spec)
	}
	if s.Image != nil && s.Image.PullPolicy == "" {
		s.Image.PullPolicy = pullPolicy(s.Image.Reference)
	}
	if s.ISCSI != nil {
		defaults.Zero(&s.ISCSI.ISCSIInterface, "default")
	}
	if s.RBD != nil {
		defaults.Zero(&s.RBD.RBDPool, "rbd")
		defaults.Zero(&s.RBD.RadosUser, "admin")
		defaults.Zero(&s.RBD.Keyring, "/etc/ceph/keyring")
	}
	defaultAzureDisk(s.AzureDisk)
	if s.ScaleIO != nil {
		defaults.Zero(&s.ScaleIO.StorageMode, "ThinProvisioned")
		defaults.Zero(&s.ScaleIO.FSType, "xfs")
	}
}

func defaultAzureDisk(d *corev1.AzureDiskVolumeSource) {
	if d != nil {
		defaults.Ptr(&d.CachingMode, corev1.AzureDataDiskCachingReadWrite)
		defaults.Ptr(&d.FSType, "ext4")
		defaults.Ptr(&d.ReadOnly, false)
		defaults.Ptr(&d.Kind, corev1.AzureSharedBlobDisk)
	}
}

// DefaultPersistentVolumeClaimSpec is for claims and for templates of claims.
func DefaultPersistentVolumeClaimSpec(s *corev1.PersistentVolumeClaimSpec) {
	defaults.Ptr(&s.VolumeMode, corev1.PersistentVolumeFilesystem)
	roundUp(s.Resources.Limits)
	roundUp(s.Resources.Requests)
}

func requestsFromLimits(containers []corev1.Container) {
	for i := range containers {
		r := &containers[i].Resources
		if r.Limits != nil && r.Requests == nil {
			r.Requests = make(corev1.ResourceList, len(r.Limits))
		}
		for name, limit := range r.Limits {
			if _, set := r.Requests[name]; !set {
				r.Requests[name] = limit.DeepCopy()
			}
		}
	}
}

// Requests and limits of the pod as a whole (KEP-2837), which are only filled
// in when the user has begun to: huge page limits are the containers' sum;
// requests are the containers', else the pod's own limits.
func defaultPodResources(p *corev1.Pod) {
	r := p.Spec.Resources
	if r == nil {
		return
	}
	if len(r.Limits) > 0 || len(r.Requests) > 0 {
		for name, sum := range podresource.AggregateContainerLimits(p, podresource.PodResourcesOptions{}) {
			if !isHugePages(name) || !podresource.IsSupportedPodLevelResource(name) {
				continue
			}
			if _, asked := r.Requests[name]; !asked {
				setIfAbsent(&r.Limits, name, sum)
			}
		}
	}
	if len(r.Limits) == 0 {
		return
	}
	for name, sum := range podresource.AggregateContainerRequests(p, podresource.PodResourcesOptions{}) {
		if podresource.IsSupportedPodLevelResource(name) && isNative(name) && !isHugePages(name) {
			setIfAbsent(&r.Requests, name, sum)
		}
	}
	for name, limit := range r.Limits {
		if podresource.IsSupportedPodLevelResource(name) {
			setIfAbsent(&r.Requests, name, limit)
		}
	}
}

func setIfAbsent(list *corev1.ResourceList, name corev1.ResourceName, q resource.Quantity) {
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	if _, set := (*list)[name]; !set {
		(*list)[name] = q.DeepCopy()
	}
}

// On the host's network a container port is a port of the host.
func hostPorts(containers []corev1.Container) {
	for i := range containers {
		for j := range containers[i].Ports {
			port := &containers[i].Ports[j]
			defaults.Zero(&port.HostPort, port.ContainerPort)
		}
	}
}

// Quantities are kept in thousandths at the finest.
func roundUp(list corev1.ResourceList) {
	for name, q := range list {
		if !q.RoundUp(resource.Milli) {
			list[name] = q
		}
	}
}

// pullPolicy is Always for the tag latest, also when it is only implied, and
// IfNotPresent for any other tag, a digest, or what is no image name at all.
func pullPolicy(image string) corev1.PullPolicy {
	name, digest, digested := strings.Cut(image, "@")
	tag := ""
	if slash, colon := strings.LastIndexByte(name, '/'), strings.LastIndexByte(name, ':'); colon > slash {
		name, tag = name[:colon], name[colon+1:]
		if !isTag(tag) {
			return corev1.PullIfNotPresent
		}
	}
	if tag == "" && !digested {
		tag = "latest"
	}
	if tag != "latest" || digested && !isDigest(digest) || !isRepository(name) {
		return corev1.PullIfNotPresent
	}
	return corev1.PullAlways
}

// The grammar of image names is github.com/distribution/reference's.

func isTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '-' || s[0] == '.' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !isAlnum(c) && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

func isDigest(s string) bool {
	algorithm, hex, ok := strings.Cut(s, ":")
	if !ok || algorithm == "" || len(hex) < 32 {
		return false
	}
	for i := 0; i < len(hex); i++ {
		if c := hex[i] | 0x20; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isRepository(s string) bool {
	// 64 hex digits are taken for an image's id.
	if s == "" || len(s) > 255 || len(s) == 64 && isDigest("id:"+s) && !strings.ContainsAny(s, "ABCDEF") {
		return false
	}
	first, rest, more := strings.Cut(s, "/")
	if more && (strings.ContainsAny(first, ".:") || first == "localhost" || first != strings.ToLower(first)) {
		if !isRegistry(first) {
			return false
		}
		s = rest
	}
	for part := range strings.SplitSeq(s, "/") {
		if !isRepositoryPart(part) {
			return false
		}
	}
	return true
}

func isRegistry(s string) bool {
	host, port, ok := s, "", false
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port, ok = s[:i], s[i+1:], true
	}
	if ok && (port == "" || strings.Trim(port, "0123456789") != "") {
		return false
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		return len(host) > 2 && strings.Trim(host[1:len(host)-1], "0123456789abcdefABCDEF:") == ""
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || !isAlnum(label[0]) || !isAlnum(label[len(label)-1]) {
			return false
		}
		for i := 0; i < len(label); i++ {
			if !isAlnum(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

// isRepositoryPart: lower-case letters and digits, joined by ".", "_", "__" or
// any number of "-".
func isRepositoryPart(s string) bool {
	isWord := func(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
	if s == "" || !isWord(s[0]) || !isWord(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if isWord(s[i]) {
			i++
			continue
		}
		j := i
		for !isWord(s[j]) {
			j++
		}
		switch sep := s[i:j]; {
		case sep == ".", sep == "_", sep == "__", strings.Trim(sep, "-") == "":
		default:
			return false
		}
		i = j
	}
	return true
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
