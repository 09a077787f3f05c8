package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/kubelet/pod"
)

var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// Effective security context of a container: its own over the pod's.
func Effective(p *v1.Pod, c *v1.Container) *v1.SecurityContext {
	sc := &v1.SecurityContext{}
	if c.SecurityContext != nil {
		sc = c.SecurityContext.DeepCopy()
	}
	ps := p.Spec.SecurityContext
	if ps == nil {
		return sc
	}
	if sc.RunAsUser == nil {
		sc.RunAsUser = ps.RunAsUser
	}
	if sc.RunAsGroup == nil {
		sc.RunAsGroup = ps.RunAsGroup
	}
	if sc.RunAsNonRoot == nil {
		sc.RunAsNonRoot = ps.RunAsNonRoot
	}
	if sc.SELinuxOptions == nil {
		sc.SELinuxOptions = ps.SELinuxOptions
	}
	if sc.SeccompProfile == nil {
		sc.SeccompProfile = ps.SeccompProfile
	}
	if sc.AppArmorProfile == nil {
		sc.AppArmorProfile = ps.AppArmorProfile
	}
	return sc
}

func (in *Input) security() (*cri.LinuxContainerSecurityContext, error) {
	sc := Effective(in.Pod, in.Container)
	uid, name := imageUser(in.Image)
	if err := nonRoot(in.Pod, in.Container, sc, uid, name); err != nil {
		return nil, err
	}
	out := &cri.LinuxContainerSecurityContext{
		Privileged:       ptr.Deref(sc.Privileged, false),
		ReadonlyRootfs:   ptr.Deref(sc.ReadOnlyRootFilesystem, false),
		NamespaceOptions: namespaces(in.Pod, in.IDs),
		NoNewPrivs:       sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
		SelinuxOptions:   selinux(sc.SELinuxOptions),
		MaskedPaths:      maskedPaths, ReadonlyPaths: readonlyPaths,
	}
	if in.Target != "" {
		out.NamespaceOptions.Pid, out.NamespaceOptions.TargetId = cri.NamespaceMode_TARGET, in.Target
	}
	if ptr.Deref(sc.ProcMount, v1.DefaultProcMount) == v1.UnmaskedProcMount {
		out.MaskedPaths, out.ReadonlyPaths = []string{}, []string{}
	}
	if sc.Capabilities != nil {
		out.Capabilities = &cri.Capability{}
		for _, c := range sc.Capabilities.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(c))
		}
		for _, c := range sc.Capabilities.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(c))
		}
	}
	switch {
	case sc.RunAsUser != nil:
		out.RunAsUser = &cri.Int64Value{Value: *sc.RunAsUser}
	case uid != nil:
		out.RunAsUser = &cri.Int64Value{Value: *uid}
	default:
		out.RunAsUsername = name
	}
	if sc.RunAsGroup != nil {
		out.RunAsGroup = &cri.Int64Value{Value: *sc.RunAsGroup}
	}
	out.SupplementalGroups, out.SupplementalGroupsPolicy = groups(in.Pod)
	var err error
	if out.Seccomp, err = in.seccomp(sc.SeccompProfile); err != nil {
		return nil, err
	}
	if a := sc.AppArmorProfile; a != nil {
		out.Apparmor = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_ProfileType(cri.SecurityProfile_ProfileType_value[string(a.Type)])}
		if a.Type == v1.AppArmorProfileTypeLocalhost {
			out.Apparmor.LocalhostRef = ptr.Deref(a.LocalhostProfile, "")
		}
	}
	return out, nil
}

func imageUser(img *cri.Image) (*int64, string) {
	if img == nil {
		return nil, ""
	}
	if img.Uid != nil {
		return &img.Uid.Value, ""
	}
	return ptr.To[int64](0), img.Username
}

// nonRoot enforces runAsNonRoot.
func nonRoot(p *v1.Pod, c *v1.Container, sc *v1.SecurityContext, uid *int64, name string) error {
	if !ptr.Deref(sc.RunAsNonRoot, false) {
		return nil
	}
	if sc.RunAsUser != nil {
		if *sc.RunAsUser == 0 {
			return fmt.Errorf("container's runAsUser breaks non-root policy (pod: %q, container: %s)", pod.String(p), c.Name)
		}
		return nil
	}
	if name != "" {
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root (pod: %q, container: %s)", name, pod.String(p), c.Name)
	}
	if uid != nil && *uid == 0 {
		return fmt.Errorf("container has runAsNonRoot and image will run as root (pod: %q, container: %s)", pod.String(p), c.Name)
	}
	return nil
}

func (in *Input) seccomp(p *v1.SeccompProfile) (*cri.SecurityProfile, error) {
	out := &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
	if p == nil {
		return out, nil
	}
	switch p.Type {
	case v1.SeccompProfileTypeRuntimeDefault:
		out.ProfileType = cri.SecurityProfile_RuntimeDefault
	case v1.SeccompProfileTypeLocalhost:
		if ptr.Deref(p.LocalhostProfile, "") == "" {
			return nil, fmt.Errorf("localhostProfile must be set if seccompProfile type is Localhost.")
		}
		out.ProfileType, out.LocalhostRef = cri.SecurityProfile_Localhost, filepath.Join(in.SeccompDir, *p.LocalhostProfile)
	}
	return out, nil
}

func selinux(o *v1.SELinuxOptions) *cri.SELinuxOption {
	if o == nil {
		return nil
	}
	return &cri.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func groups(p *v1.Pod) ([]int64, cri.SupplementalGroupsPolicy) {
	sc := p.Spec.SecurityContext
	if sc == nil {
		return nil, 0
	}
	var list []int64
	if sc.FSGroup != nil {
		list = append(list, *sc.FSGroup)
	}
	list = append(list, sc.SupplementalGroups...)
	return list, cri.SupplementalGroupsPolicy(cri.SupplementalGroupsPolicy_value[string(ptr.Deref(sc.SupplementalGroupsPolicy, ""))])
}

func namespaces(p *v1.Pod, ids *cri.UserNamespace) *cri.NamespaceOption {
	n := &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER, UsernsOptions: ids}
	if p.Spec.HostNetwork {
		n.Network = cri.NamespaceMode_NODE
	}
	if p.Spec.HostIPC {
		n.Ipc = cri.NamespaceMode_NODE
	}
	switch {
	case p.Spec.HostPID:
		n.Pid = cri.NamespaceMode_NODE
	case ptr.Deref(p.Spec.ShareProcessNamespace, false):
		n.Pid = cri.NamespaceMode_POD
	}
	return n
}

func sandboxSecurity(p *v1.Pod, ids *cri.UserNamespace, profile string) *cri.LinuxSandboxSecurityContext {
	s := &cri.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(p, ids),
		Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
	}
	if profile != "" {
		s.Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: profile}
	}
	privileged := func(c v1.Container) bool {
		return c.SecurityContext != nil && ptr.Deref(c.SecurityContext.Privileged, false)
	}
	s.Privileged = slices.ContainsFunc(p.Spec.Containers, privileged) || slices.ContainsFunc(p.Spec.InitContainers, privileged)
	s.SupplementalGroups, s.SupplementalGroupsPolicy = groups(p)
	if sc := p.Spec.SecurityContext; sc != nil {
		s.SelinuxOptions = selinux(sc.SELinuxOptions)
		if sc.RunAsUser != nil {
			s.RunAsUser = &cri.Int64Value{Value: *sc.RunAsUser}
			if sc.RunAsGroup != nil {
				s.RunAsGroup = &cri.Int64Value{Value: *sc.RunAsGroup}
			}
		}
	}
	return s
}

func mkdir(dir string) error { return os.MkdirAll(dir, 0o755) }
