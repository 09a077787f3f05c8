package core

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/node/util/sysctl"

	"github.com/proa-dev/proa/internal/api/validate"
)

func (c *specCheck) podSecurity(p *validate.Path) {
	sc, e := c.spec.SecurityContext, c.e
	if isTrue(c.spec.ShareProcessNamespace) && c.spec.HostPID {
		e.Invalid(p.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled")
	}
	if sc == nil {
		return
	}
	if sc.FSGroup != nil {
		groupID(e, *sc.FSGroup, p.Child("fsGroup"))
	}
	userID(e, sc.RunAsUser, p.Child("runAsUser"))
	if sc.RunAsGroup != nil {
		groupID(e, *sc.RunAsGroup, p.Child("runAsGroup"))
	}
	for i, gid := range sc.SupplementalGroups {
		groupID(e, gid, p.Child("supplementalGroups").Index(i))
	}
	c.sysctls(sc.Sysctls, p.Child("sysctls"))
	if sc.FSGroupChangePolicy != nil {
		validate.OneOf(e, p.Child("fsGroupChangePolicy"), *sc.FSGroupChangePolicy, corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)
	}
	seccomp(e, sc.SeccompProfile, p.Child("seccompProfile"))
	windowsOptions(e, sc.WindowsOptions, p.Child("windowsOptions"))
	appArmor(e, sc.AppArmorProfile, p.Child("appArmorProfile"))
	if sc.SupplementalGroupsPolicy != nil {
		validate.OneOf(e, p.Child("supplementalGroupsPolicy"), *sc.SupplementalGroupsPolicy, corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
	}
	if sc.SELinuxChangePolicy != nil {
		// Mounting with a context is off in v1.36; who has it may keep it.
		if c.old != nil && c.old.SecurityContext != nil && c.old.SecurityContext.SELinuxChangePolicy != nil {
			validate.OneOf(e, p.Child("seLinuxChangePolicy"), *sc.SELinuxChangePolicy, corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)
		} else {
			validate.OneOf(e, p.Child("seLinuxChangePolicy"), *sc.SELinuxChangePolicy, corev1.SELinuxChangePolicyRecursive)
		}
	}
}

func (c *specCheck) sysctls(list []corev1.Sysctl, p *validate.Path) {
	var names seen[string]
	for i, s := range list {
		at := p.Index(i).Child("name")
		if s.Name == "" {
			c.e.Required(at, "")
		} else if !isSysctl(s.Name) {
			c.e.Invalid(at, s.Name, "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$")
		} else if names.has(s.Name) {
			c.e.Duplicate(at, s.Name)
		}
		names.add(s.Name)
		if why := hostSysctl(c.spec, s.Name); why != "" && !hasHostSysctl(c.old) {
			c.e.Invalid(at, s.Name, why)
		}
	}
}

// isSysctl: segments of lower-case letters, digits, "-" and "_", joined by "."
// or "/".
func isSysctl(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for part := range strings.SplitSeq(strings.ReplaceAll(s, "/", "."), ".") {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || strings.ContainsAny(part[:1]+part[len(part)-1:], "-_") {
			return false
		}
		for i := 0; i < len(part); i++ {
			if c := part[i]; c != '-' && c != '_' && (!isAlnum(c) || 'A' <= c && c <= 'Z') {
				return false
			}
		}
	}
	return true
}

// hostSysctl: a sysctl of a namespace that the pod shares with the host.
func hostSysctl(s *corev1.PodSpec, name string) string {
	switch ns, _, _ := sysctl.GetNamespace(name); {
	case s.HostNetwork && ns == sysctl.NetNamespace:
		return "may not be specified when 'hostNetwork' is true"
	case s.HostIPC && ns == sysctl.IPCNamespace:
		return "may not be specified when 'hostIPC' is true"
	}
	return ""
}

func hasHostSysctl(s *corev1.PodSpec) bool {
	if s != nil && s.SecurityContext != nil {
		for _, ctl := range s.SecurityContext.Sysctls {
			if hostSysctl(s, ctl.Name) != "" {
				return true
			}
		}
	}
	return false
}

// security checks a container's security context.
func (c *specCheck) security(sc *corev1.SecurityContext, p *validate.Path) {
	if sc == nil {
		return
	}
	e := c.e
	userID(e, sc.RunAsUser, p.Child("runAsUser"))
	if sc.RunAsGroup != nil {
		groupID(e, *sc.RunAsGroup, p.Child("runAsGroup"))
	}
	if sc.ProcMount != nil {
		validate.OneOf(e, p.Child("procMount"), *sc.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)
		if c.hostUsers && *sc.ProcMount == corev1.UnmaskedProcMount {
			e.Invalid(p.Child("procMount"), *sc.ProcMount, "`hostUsers` must be false to use `Unmasked`")
		}
	}
	seccomp(e, sc.SeccompProfile, p.Child("seccompProfile"))
	if sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
		if isTrue(sc.Privileged) {
			e.Invalid(p, sc, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
		}
		if sc.Capabilities != nil {
			for _, added := range sc.Capabilities.Add {
				if added == "CAP_SYS_ADMIN" {
					e.Invalid(p, sc, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
				}
			}
		}
	}
	windowsOptions(e, sc.WindowsOptions, p.Child("windowsOptions"))
	appArmor(e, sc.AppArmorProfile, p.Child("appArmorProfile"))
}

func seccomp(e *validate.Errs, s *corev1.SeccompProfile, p *validate.Path) {
	if s == nil {
		return
	}
	if s.Type == "" {
		e.Required(p.Child("type"), "type is required when seccompProfile is set")
	} else {
		validate.OneOf(e, p.Child("type"), s.Type, corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	}
	switch {
	case s.Type != corev1.SeccompProfileTypeLocalhost && s.LocalhostProfile != nil:
		e.Invalid(p.Child("localhostProfile"), s, "can only be set when seccomp type is Localhost")
	case s.Type == corev1.SeccompProfileTypeLocalhost && s.LocalhostProfile == nil:
		e.Required(p.Child("localhostProfile"), "must be set when seccomp type is Localhost")
	case s.Type == corev1.SeccompProfileTypeLocalhost:
		descending(e, *s.LocalhostProfile, p.Child("localhostProfile"))
	}
}

func appArmor(e *validate.Errs, a *corev1.AppArmorProfile, p *validate.Path) {
	if a == nil {
		return
	}
	file := p.Child("localhostProfile")
	switch a.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		if a.LocalhostProfile == nil {
			e.Required(file, "must be set when AppArmor type is Localhost")
			return
		}
		if trimmed := strings.TrimSpace(*a.LocalhostProfile); trimmed != *a.LocalhostProfile {
			e.Invalid(file, *a.LocalhostProfile, "must not be padded with whitespace")
		} else if trimmed == "" {
			e.Required(file, "must be set when AppArmor type is Localhost")
		}
		if len(*a.LocalhostProfile) > 4095 {
			e.TooLong(file, 4095)
		}
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if a.LocalhostProfile != nil {
			e.Invalid(file, a.LocalhostProfile, "can only be set when AppArmor type is Localhost")
		}
	case "":
		e.Required(p.Child("type"), "type is required when appArmorProfile is set")
	default:
		validate.NotSupported(e, p.Child("type"), a.Type, corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	}
}

// A pod with users of its own shares no other namespace of the host's.
func (c *specCheck) userNamespace(p *validate.Path) {
	s := c.spec
	if c.hostUsers {
		return
	}
	const why = "when `hostUsers` is false"
	if s.HostNetwork && (c.old == nil || !c.old.HostNetwork || c.old.HostUsers == nil || *c.old.HostUsers) {
		c.e.Forbidden(p.Child("hostNetwork"), why)
	}
	if s.HostPID {
		c.e.Forbidden(p.Child("HostPID"), why)
	}
	if s.HostIPC {
		c.e.Forbidden(p.Child("HostIPC"), why)
	}
	var was bool
	if c.old != nil && c.old.HostUsers != nil && !*c.old.HostUsers {
		eachContainer(c.old, func(_ string, _ int, ctr *corev1.Container) { was = was || len(ctr.VolumeDevices) > 0 })
	}
	eachContainer(s, func(kind string, i int, ctr *corev1.Container) {
		if len(ctr.VolumeDevices) > 0 && !was {
			c.e.Forbidden(p.Child(kind).Index(i).Child("volumeDevices"), why)
		}
	})
}

// hostProcess: Windows' privileged containers; all of a pod are, or none.
func (c *specCheck) hostProcess(p *validate.Path) {
	var ofPod *bool
	if sc := c.spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		ofPod = sc.WindowsOptions.HostProcess
	}
	total, n := 0, 0
	eachContainer(c.spec, func(kind string, i int, ctr *corev1.Container) {
		total++
		var own *bool
		if ctr.SecurityContext != nil && ctr.SecurityContext.WindowsOptions != nil {
			own = ctr.SecurityContext.WindowsOptions.HostProcess
		}
		if ofPod != nil && own != nil && *ofPod != *own {
			c.e.Invalid(p.Child(kind).Index(i).Child("securityContext").Child("windowsOptions").Child("hostProcess"), *own,
				"pod hostProcess value must be identical if both are specified, was "+strconv.FormatBool(*ofPod))
		}
		if isTrue(own) || own == nil && isTrue(ofPod) {
			n++
		}
	})
	if n == 0 {
		return
	}
	if n != total {
		c.e.Invalid(p, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers")
	}
	if !c.spec.HostNetwork {
		c.e.Invalid(p.Child("hostNetwork"), false, "hostNetwork must be true if pod contains any hostProcess containers")
	}
}

func windowsOptions(e *validate.Errs, w *corev1.WindowsSecurityContextOptions, p *validate.Path) {
	if w == nil {
		return
	}
	if w.GMSACredentialSpecName != nil {
		requiredSubdomain(e, *w.GMSACredentialSpecName, p.Child("gmsaCredentialSpecName"))
	}
	if s := w.GMSACredentialSpec; s != nil {
		if *s == "" {
			e.Invalid(p.Child("gmsaCredentialSpec"), s, "gmsaCredentialSpec cannot be an empty string")
		} else if len(*s) > 64*1024 {
			e.Invalid(p.Child("gmsaCredentialSpec"), s, "gmsaCredentialSpec size must be under 64 KiB")
		}
	}
	if w.RunAsUserName != nil {
		for _, why := range windowsUser(*w.RunAsUserName) {
			e.Invalid(p.Child("runAsUserName"), *w.RunAsUserName, why)
		}
	}
}

// windowsUser: [DOMAIN\]USER.
func windowsUser(s string) (why []string) {
	if s == "" {
		return []string{"runAsUserName cannot be an empty string"}
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return []string{"runAsUserName cannot contain control characters"}
	}
	domain, user, hasDomain := strings.Cut(s, `\`)
	if strings.Contains(user, `\`) {
		return []string{"runAsUserName cannot contain more than one backslash"}
	}
	if !hasDomain {
		domain, user = "", s
	}
	if len(domain) >= 256 {
		why = append(why, "runAsUserName's Domain length must be under 256 characters")
	}
	if hasDomain && !isNetBIOS(domain) && !isWindowsDomain(domain) {
		why = append(why, "runAsUserName's Domain doesn't match the NetBios nor the DNS format")
	}
	if user == "" {
		why = append(why, "runAsUserName's User cannot be empty")
	} else if len(user) > 104 {
		why = append(why, "runAsUserName's User length must not be longer than 104 characters")
	}
	if user != "" && strings.Trim(user, ". ") == "" {
		why = append(why, "runAsUserName's User cannot contain only periods or spaces")
	}
	if strings.ContainsAny(user, `"/\:;|=,+*?<>@[]`) {
		why = append(why, `runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]`)
	}
	return why
}

func isNetBIOS(s string) bool {
	n := len([]rune(s))
	return n >= 1 && n <= 15 && s[0] != '.' && !strings.ContainsAny(s, `\/:*?"<>|`)
}

func isWindowsDomain(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if validate.Label(strings.ToLower(part)) != nil {
			return false
		}
	}
	return true
}

// os: what one operating system has cannot be asked of the other.
func (c *specCheck) os(p *validate.Path) {
	if c.spec.OS == nil {
		return
	}
	switch c.spec.OS.Name {
	case corev1.Linux:
		const why = "windows options cannot be set for a linux pod"
		if sc := c.spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
			c.e.Forbidden(p.Child("securityContext").Child("windowsOptions"), why)
		}
		eachContainer(c.spec, func(kind string, i int, ctr *corev1.Container) {
			if ctr.SecurityContext != nil && ctr.SecurityContext.WindowsOptions != nil {
				c.e.Forbidden(p.Child(kind).Index(i).Child("securityContext").Child("windowsOptions"), why)
			}
		})
	case corev1.Windows:
		c.windows(p)
	case "":
		c.e.Required(p.Child("os").Child("name"), "")
	default:
		validate.NotSupported(c.e, p.Child("os"), c.spec.OS.Name, corev1.Linux, corev1.Windows)
	}
}

func (c *specCheck) windows(p *validate.Path) {
	forbid := func(p *validate.Path, name string, set bool) {
		if set {
			c.e.Forbidden(p.Child(name), "cannot be set for a windows pod")
		}
	}
	s := c.spec
	forbid(p, "hostUsers", s.HostUsers != nil)
	forbid(p, "hostPID", s.HostPID)
	forbid(p, "hostIPC", s.HostIPC)
	forbid(p, "shareProcessNamespace", s.ShareProcessNamespace != nil)
	if sc := s.SecurityContext; sc != nil {
		at := p.Child("securityContext")
		forbid(at, "appArmorProfile", sc.AppArmorProfile != nil)
		forbid(at, "seLinuxOptions", sc.SELinuxOptions != nil)
		forbid(at, "seccompProfile", sc.SeccompProfile != nil)
		forbid(at, "fsGroup", sc.FSGroup != nil)
		forbid(at, "fsGroupChangePolicy", sc.FSGroupChangePolicy != nil)
		forbid(at, "sysctls", len(sc.Sysctls) > 0)
		forbid(at, "runAsUser", sc.RunAsUser != nil)
		forbid(at, "runAsGroup", sc.RunAsGroup != nil)
		forbid(at, "supplementalGroups", sc.SupplementalGroups != nil)
		forbid(at, "supplementalGroupsPolicy", sc.SupplementalGroupsPolicy != nil)
		forbid(at, "seLinuxChangePolicy", sc.SELinuxChangePolicy != nil)
	}
	eachContainer(s, func(kind string, i int, ctr *corev1.Container) {
		sc := ctr.SecurityContext
		if sc == nil {
			return
		}
		at := p.Child(kind).Index(i).Child("securityContext")
		forbid(at, "appArmorProfile", sc.AppArmorProfile != nil)
		forbid(at, "seLinuxOptions", sc.SELinuxOptions != nil)
		forbid(at, "seccompProfile", sc.SeccompProfile != nil)
		forbid(at, "capabilities", sc.Capabilities != nil)
		forbid(at, "readOnlyRootFilesystem", sc.ReadOnlyRootFilesystem != nil)
		forbid(at, "privileged", sc.Privileged != nil)
		forbid(at, "allowPrivilegeEscalation", sc.AllowPrivilegeEscalation != nil)
		forbid(at, "procMount", sc.ProcMount != nil)
		forbid(at, "runAsUser", sc.RunAsUser != nil)
		forbid(at, "runAsGroup", sc.RunAsGroup != nil)
	})
}
