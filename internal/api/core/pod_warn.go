package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api/validate"
)

// Pods are warned about when they are created; people seldom update them.
func warnPod(p, old *corev1.Pod) []string {
	if old != nil {
		return nil
	}
	w := warner{}
	if why := validate.Label(p.Name); why != nil {
		w.addf("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: %v", why)
	}
	w.spec(nil, &p.Spec, &p.ObjectMeta)
	return w.list
}

// WarnPodTemplate says what is odd about a template of pods at p
// ("spec.template"): deprecated fields, duplicates that hide each other.
func WarnPodTemplate(t *corev1.PodTemplateSpec, p *field.Path) []string {
	w := warner{}
	w.spec(p, &t.Spec, &t.ObjectMeta)
	return w.list
}

type warner struct{ list []string }

func (w *warner) addf(format string, args ...any) {
	w.list = append(w.list, fmt.Sprintf(format, args...))
}

// below is p.names, where a nil p is an object's root.
func below(p *field.Path, names ...string) *field.Path {
	if p == nil {
		return field.NewPath(names[0], names[1:]...)
	}
	return p.Child(names[0], names[1:]...)
}

// ip is for addresses, which upstream hands a warner of their own.
func (w *warner) ip(p *field.Path, s string) {
	w.list = append(w.list, validation.GetWarningsForIP(p, s)...)
}

func (w *warner) spec(p *field.Path, s *corev1.PodSpec, m *metav1.ObjectMeta) {
	w.scheduling(p, s)
	for _, a := range [...][2]string{
		{"scheduler.alpha.kubernetes.io/critical-pod", `non-functional in v1.16+; use the "priorityClassName" field instead`},
		{"security.alpha.kubernetes.io/sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
		{"security.alpha.kubernetes.io/unsafe-sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
	} {
		if _, ok := m.Annotations[a[0]]; ok {
			w.addf("%s: %s", below(p, "metadata", "annotations").Key(a[0]), a[1])
		}
	}
	for i := range s.Volumes {
		w.volume(p, i, &s.Volumes[i])
	}
	w.overlaps(s.Volumes)
	duplicates := func(n int, list, name string, key func(int) string, empty bool) {
		var keys seen[string]
		for i := range n {
			if !keys.add(key(i)) {
				w.addf("%s: duplicate %s %q", below(p, "spec", list).Index(i).Child(name), name, key(i))
			}
		}
		for i := range n {
			if empty && key(i) == "" {
				w.addf("%s: invalid empty %s %q", below(p, "spec", list).Index(i).Child(name), name, "")
			}
		}
	}
	duplicates(len(s.HostAliases), "hostAliases", "ip", func(i int) string { return s.HostAliases[i].IP }, false)
	duplicates(len(s.ImagePullSecrets), "imagePullSecrets", "name", func(i int) string { return s.ImagePullSecrets[i].Name }, true)
	w.fractions(s.Overhead, func() *field.Path { return below(p, "spec", "overhead") })
	if _, ok := m.Annotations[corev1.SeccompPodAnnotationKey]; ok && (s.SecurityContext == nil || s.SecurityContext.SeccompProfile == nil) {
		w.addf(`%s: non-functional in v1.27+; use the "seccompProfile" field instead`, below(p, "metadata", "annotations").Key(corev1.SeccompPodAnnotationKey))
	}
	eachContainer(s, func(kind string, i int, c *corev1.Container) { w.container(p, kind, i, c, s, m) })
	w.ports(p, s)
	if g := s.TerminationGracePeriodSeconds; g != nil && *g < 0 {
		w.addf("%s: must be >= 0; negative values are invalid and will be treated as 1", below(p, "spec", "terminationGracePeriodSeconds"))
	}
	w.podAffinity(p, s)
	if s.DNSConfig != nil {
		for i, ns := range s.DNSConfig.Nameservers {
			w.ip(below(p, "spec", "dnsConfig", "nameservers").Index(i), ns)
		}
	}
	for i := range s.HostAliases {
		w.ip(below(p, "spec", "hostAliases").Index(i).Child("ip"), s.HostAliases[i].IP)
	}
}

func (w *warner) container(p *field.Path, kind string, i int, c *corev1.Container, s *corev1.PodSpec, m *metav1.ObjectMeta) {
	if len(m.Annotations) > 0 {
		key := corev1.SeccompContainerAnnotationKeyPrefix + c.Name
		if _, ok := m.Annotations[key]; ok && (c.SecurityContext == nil || c.SecurityContext.SeccompProfile == nil) {
			w.addf(`%s: non-functional in v1.27+; use the "seccompProfile" field instead`, below(p, "metadata", "annotations").Key(key))
		}
		var ofPod *corev1.AppArmorProfile
		if s.SecurityContext != nil {
			ofPod = s.SecurityContext.AppArmorProfile
		}
		key = corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix + c.Name
		own := c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil
		if a, ok := m.Annotations[key]; ok && (p == nil || !own) && (ofPod == nil || !apiequality.Semantic.DeepEqual(ofPod, appArmorProfile(a))) {
			w.addf(`%s: deprecated since v1.30; use the "appArmorProfile" field instead`, below(p, "metadata", "annotations").Key(key))
		}
	}
	at := func() *field.Path { return below(p, "spec", kind).Index(i) }
	w.fractions(c.Resources.Limits, func() *field.Path { return at().Child("resources", "limits") })
	w.fractions(c.Resources.Requests, func() *field.Path { return at().Child("resources", "requests") })
	var names seen[string]
	for j := range c.Env {
		v := &c.Env[j]
		if names.add(v.Name) {
			continue
		}
		// A later one may build on the earlier: X=$(X)123.
		ref := "$(" + v.Name + ")"
		if v.ValueFrom != nil || v.Value == ref || !strings.Contains(v.Value, ref) {
			w.addf("%s: hides previous definition of %q, which may be dropped when using apply", at().Child("env").Index(j), v.Name)
		}
	}
}

func (w *warner) fractions(list corev1.ResourceList, at func() *field.Path) {
	for _, name := range [...]corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q, ok := list[name]; ok && isFraction(q) {
			w.addf("%s: fractional byte value %q is invalid, must be an integer", at().Key(string(name)), q.String())
		}
	}
}

func isFraction(q resource.Quantity) bool { return q.MilliValue()%1000 != 0 }

func (w *warner) ports(p *field.Path, s *corev1.PodSpec) {
	type number struct {
		port     int32
		protocol corev1.Protocol
	}
	type place struct {
		kind    string
		i, j    int
		hostIP  string
		hostPrt int32
	}
	var places map[number][]place
	var names map[string]place
	path := func(x place) *field.Path { return below(p, "spec", x.kind).Index(x.i).Child("ports").Index(x.j) }
	eachContainer(s, func(kind string, i int, c *corev1.Container) {
		for j := range c.Ports {
			port := &c.Ports[j]
			here := place{kind, i, j, port.HostIP, port.HostPort}
			if port.HostIP != "" && port.HostPort == 0 {
				w.addf("%s: hostIP set without hostPort: %+v", path(here), *port)
			}
			if places == nil {
				places, names = map[number][]place{}, map[string]place{}
			}
			k := number{port.ContainerPort, port.Protocol}
			for _, other := range places[k] {
				switch {
				case port.HostIP == other.hostIP && port.HostPort == other.hostPrt:
					w.addf("%s: duplicate port definition with %s", path(here), path(other))
				case port.HostPort == 0 || other.hostPrt == 0:
					w.addf("%s: overlapping port definition with %s", path(here), path(other))
				case port.HostPort == other.hostPrt && (port.HostIP == "") != (other.hostIP == ""):
					w.addf("%s: dangerously ambiguous port definition with %s", path(here), path(other))
				}
			}
			places[k] = append(places[k], here)
		}
	})
	eachContainer(s, func(kind string, i int, c *corev1.Container) {
		for j := range c.Ports {
			here := place{kind: kind, i: i, j: j}
			if name := c.Ports[j].Name; name == "" {
			} else if other, ok := names[name]; ok {
				w.addf("%s: duplicate port name %q with %s, services and probes that select ports by name will use %s", path(here), name, path(other), path(other))
			} else {
				names[name] = here
			}
		}
	})
}
