// Package container translates a pod's specification into what the runtime is
// told: sandbox and container configurations, environment, DNS, /etc/hosts,
// security contexts, resources.
package container

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"strconv"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/kubelet/pod"
	"github.com/proa-dev/proa/internal/kubelet/runtime"
	"github.com/proa-dev/proa/internal/kubelet/volume"
)

// Node is what every pod on the node shares.
type Node struct {
	ClusterDNS    []string
	ClusterDomain string
	ResolvConf    string // path
	LogsDir       string
	SeccompDir    string // where Localhost profiles are
	Sandboxes     string // path of the seccomp profile of sandboxes, "" = the runtime's default
	Memory        int64  // capacity in bytes
	Allocatable   v1.ResourceList
	CgroupV2      bool
	Swap          bool
	RRO           bool // the runtime can mount read-only recursively
}

// Input for one container's configuration.
type Input struct {
	*Node
	Pod       *v1.Pod
	Container *v1.Container
	Objects   Objects
	Volumes   map[string]volume.Mounted
	PodDir    string
	HostIPs   []string
	PodIPs    []string
	Attempt   int
	ImageRef  string     // as the runtime names the image that is there
	Image     *cri.Image // for its user
	Target    string     // container ID whose process namespace an ephemeral container joins
	IDs       *cri.UserNamespace
}

// PodLogs is the folder of a pod's logs.
func (n *Node) PodLogs(p *v1.Pod) string {
	return filepath.Join(n.LogsDir, p.Namespace+"_"+p.Name+"_"+string(p.UID))
}

// Config of the container for the runtime.
func Config(in *Input) (*cri.ContainerConfig, error) {
	c := in.Container
	names, env, err := Env(in)
	if err != nil {
		return nil, err
	}
	sec, err := in.security()
	if err != nil {
		return nil, err
	}
	mounts, err := in.mounts(env)
	if err != nil {
		return nil, err
	}
	devices, err := in.devices()
	if err != nil {
		return nil, err
	}
	if err := mkdir(filepath.Join(in.PodLogs(in.Pod), c.Name)); err != nil {
		return nil, err
	}
	cfg := &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: c.Name, Attempt: uint32(in.Attempt)},
		Image:    &cri.ImageSpec{Image: in.ImageRef, UserSpecifiedImage: c.Image},
		Command:  expandAll(c.Command, env), Args: expandAll(c.Args, env),
		WorkingDir:  c.WorkingDir,
		Labels:      Labels(in.Pod, c.Name),
		Annotations: in.annotations(),
		Mounts:      mounts,
		Devices:     devices,
		LogPath:     filepath.Join(c.Name, strconv.Itoa(in.Attempt)+".log"),
		Stdin:       c.Stdin, StdinOnce: c.StdinOnce, Tty: c.TTY,
		Linux: &cri.LinuxContainerConfig{SecurityContext: sec, Resources: Resources(in.Node, in.Pod, c)},
	}
	if l := c.Lifecycle; l != nil && l.StopSignal != nil {
		cfg.StopSignal = cri.Signal(cri.Signal_value[string(*l.StopSignal)])
	}
	for _, n := range names {
		cfg.Envs = append(cfg.Envs, &cri.KeyValue{Key: n, Value: []byte(env[n])})
	}
	return cfg, nil
}

// Labels of a container ("" = of the sandbox, which has the pod's own too).
func Labels(p *v1.Pod, container string) map[string]string {
	l := map[string]string{}
	if container == "" {
		for k, v := range p.Labels {
			l[k] = v
		}
	} else {
		l[runtime.ContainerNameLabel] = container
	}
	l[runtime.PodNameLabel], l[runtime.PodNamespaceLabel], l[runtime.PodUIDLabel] = p.Name, p.Namespace, string(p.UID)
	return l
}

func (in *Input) annotations() map[string]string {
	c := in.Container
	a := map[string]string{
		runtime.HashAnnotation:          pod.Hash(c),
		runtime.RestartCountAnnotation:  strconv.Itoa(in.Attempt),
		runtime.MessagePathAnnotation:   c.TerminationMessagePath,
		runtime.MessagePolicyAnnotation: string(c.TerminationMessagePolicy),
	}
	if g := in.Pod.Spec.TerminationGracePeriodSeconds; g != nil {
		a[runtime.PodGraceAnnotation] = strconv.FormatInt(*g, 10)
	}
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		if b, err := json.Marshal(c.Lifecycle.PreStop); err == nil {
			a[runtime.PreStopAnnotation] = string(b)
		}
	}
	if len(c.Ports) > 0 {
		if b, err := json.Marshal(c.Ports); err == nil {
			a[runtime.PortsAnnotation] = string(b)
		}
	}
	return a
}

// Resources of a container for the runtime.
func Resources(n *Node, p *v1.Pod, c *v1.Container) *cri.LinuxContainerResources {
	limit := func(name v1.ResourceName) int64 {
		q, ok := c.Resources.Limits[name]
		if !ok && p.Spec.Resources != nil {
			q = p.Spec.Resources.Limits[name]
		}
		if name == v1.ResourceCPU {
			return q.MilliValue()
		}
		return q.Value()
	}
	cpu, ok := c.Resources.Requests[v1.ResourceCPU]
	milli := cpu.MilliValue()
	if !ok {
		milli = limit(v1.ResourceCPU)
	}
	r := &cri.LinuxContainerResources{
		CpuShares: pod.Shares(milli), CpuQuota: pod.Quota(limit(v1.ResourceCPU)), CpuPeriod: 100_000,
		MemoryLimitInBytes: limit(v1.ResourceMemory),
		OomScoreAdj:        oomScore(n, p, c),
	}
	if r.CpuQuota == 0 {
		r.CpuQuota = -1
	}
	if r.MemoryLimitInBytes > 0 && n.Swap && n.CgroupV2 {
		r.MemorySwapLimitInBytes = r.MemoryLimitInBytes
	}
	if n.CgroupV2 {
		r.Unified = map[string]string{"memory.oom.group": "1"}
		if n.Swap && r.MemoryLimitInBytes == 0 {
			r.Unified["memory.swap.max"] = "0" // pods do not swap
		}
	}
	for name, q := range c.Resources.Limits {
		if size, ok := hugepage(name); ok {
			r.HugepageLimits = append(r.HugepageLimits, &cri.HugepageLimit{PageSize: size, Limit: uint64(q.Value())})
		}
	}
	return r
}

func hugepage(name v1.ResourceName) (string, bool) {
	switch name {
	case "hugepages-2Mi":
		return "2MB", true
	case "hugepages-1Gi":
		return "1GB", true
	case "hugepages-64Ki":
		return "64KB", true
	}
	return "", false
}

const systemCritical = 2_000_000_000

// oomScore says whom the kernel kills first: best effort before burstable, and
// among these who asked for less.
func oomScore(n *Node, p *v1.Pod, c *v1.Container) int64 {
	if p.Spec.Priority != nil && *p.Spec.Priority >= systemCritical {
		return -997
	}
	switch pod.QOS(p) {
	case v1.PodQOSGuaranteed:
		return -997
	case v1.PodQOSBestEffort:
		return 1000
	}
	request := c.Resources.Requests.Memory().Value()
	if pod.Sidecar(c) {
		least := int64(math.MaxInt64)
		for i := range p.Spec.Containers {
			least = min(least, p.Spec.Containers[i].Resources.Requests.Memory().Value())
		}
		request = max(request, least)
	}
	if p.Spec.Resources != nil {
		rest := p.Spec.Resources.Requests.Memory().Value()
		for i := range p.Spec.Containers {
			rest -= p.Spec.Containers[i].Resources.Requests.Memory().Value()
		}
		request += max(rest, 0) / int64(max(len(p.Spec.Containers), 1))
	}
	return min(max(1000-1000*request/max(n.Memory, 1), 3), 999)
}

// Sandbox configuration of a pod.
func Sandbox(n *Node, p *v1.Pod, attempt int, cgroupParent string, ids *cri.UserNamespace) (*cri.PodSandboxConfig, error) {
	dns, err := DNS(p, n)
	if err != nil {
		return nil, err
	}
	cfg := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: string(p.UID), Attempt: uint32(attempt)},
		Labels:       Labels(p, ""),
		Annotations:  p.Annotations,
		LogDirectory: n.PodLogs(p),
		DnsConfig:    dns,
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    cgroupParent,
			Sysctls:         map[string]string{},
			SecurityContext: sandboxSecurity(p, ids, n.Sandboxes),
			Resources:       total(n, p),
		},
	}
	if !p.Spec.HostNetwork || p.Spec.HostnameOverride != nil {
		host, domain := Hostname(p, n)
		if p.Spec.SetHostnameAsFQDN != nil && *p.Spec.SetHostnameAsFQDN && domain != "" {
			if host = host + "." + domain; len(host) > 64 {
				return nil, fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)", host, 64, len(host))
			}
		}
		cfg.Hostname = host
	}
	for i := range p.Spec.Containers {
		cfg.PortMappings = append(cfg.PortMappings, ports(&p.Spec.Containers[i])...)
	}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; pod.Sidecar(c) {
			cfg.PortMappings = append(cfg.PortMappings, ports(c)...)
		}
	}
	if p.Spec.SecurityContext != nil {
		for _, s := range p.Spec.SecurityContext.Sysctls {
			cfg.Linux.Sysctls[s.Name] = s.Value
		}
	}
	if len(p.Spec.Overhead) > 0 {
		cfg.Linux.Overhead = &cri.LinuxContainerResources{
			CpuShares: pod.Shares(p.Spec.Overhead.Cpu().MilliValue()), MemoryLimitInBytes: p.Spec.Overhead.Memory().Value(),
		}
	}
	return cfg, nil
}

// total of the containers' resources, for runtimes that size their sandbox by it.
func total(n *Node, p *v1.Pod) *cri.LinuxContainerResources {
	sum := &cri.LinuxContainerResources{CpuPeriod: 100_000}
	for i := range p.Spec.Containers {
		r := Resources(n, p, &p.Spec.Containers[i])
		sum.CpuShares += r.CpuShares
		sum.CpuQuota += max(r.CpuQuota, 0)
		sum.MemoryLimitInBytes += r.MemoryLimitInBytes
	}
	return sum
}

func ports(c *v1.Container) []*cri.PortMapping {
	var list []*cri.PortMapping
	for _, p := range c.Ports {
		if p.HostPort > 0 {
			list = append(list, &cri.PortMapping{
				HostIp: p.HostIP, HostPort: p.HostPort, ContainerPort: p.ContainerPort,
				Protocol: cri.Protocol(cri.Protocol_value[string(p.Protocol)]),
			})
		}
	}
	return list
}
