package pod

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

const (
	minShares, sharesPerCPU = 2, 1024
	period, minQuota        = 100_000, 1_000
)

// FSGroup is the group that a pod's volumes belong to, nil = none.
func FSGroup(p *v1.Pod) *int64 {
	if p.Spec.SecurityContext == nil {
		return nil
	}
	return p.Spec.SecurityContext.FSGroup
}

// Shares are the CPU shares (cgroup v1's scale) of a CPU request.
func Shares(milli int64) int64 {
	if milli == 0 {
		return minShares
	}
	return min(max(milli*sharesPerCPU/1000, minShares), 262144)
}

// Quota of CPU time in each 100 ms, in microseconds, for a CPU limit; 0 = none.
func Quota(milli int64) int64 {
	if milli == 0 {
		return 0
	}
	return max(milli*period/1000, minQuota)
}

// resources a container really has: those granted, as the runtime reports them.
func resources(c *v1.Container, have *runtime.Container, was *v1.ContainerStatus) *v1.ResourceRequirements {
	r := c.Resources.DeepCopy()
	if have.State != runtime.Running {
		return r
	}
	if was != nil && was.Resources != nil && was.ContainerID != "" && have.Resources == nil {
		return was.Resources.DeepCopy()
	}
	got := have.Resources
	if got == nil {
		return r
	}
	if q, ok := r.Limits[v1.ResourceCPU]; ok && got.CpuQuota > 0 && got.CpuPeriod > 0 {
		if milli := got.CpuQuota * 1000 / got.CpuPeriod; Quota(q.MilliValue()) != got.CpuQuota {
			r.Limits[v1.ResourceCPU] = *resource.NewMilliQuantity(milli, resource.DecimalSI)
		}
	}
	if q, ok := r.Limits[v1.ResourceMemory]; ok && got.MemoryLimitInBytes > 0 && q.Value() != got.MemoryLimitInBytes {
		r.Limits[v1.ResourceMemory] = *resource.NewQuantity(got.MemoryLimitInBytes, resource.BinarySI)
	}
	if q, ok := r.Requests[v1.ResourceCPU]; ok && got.CpuShares > 0 && Shares(q.MilliValue()) != got.CpuShares {
		r.Requests[v1.ResourceCPU] = *resource.NewMilliQuantity((got.CpuShares*1000+sharesPerCPU-1)/sharesPerCPU, resource.DecimalSI)
	}
	return r
}

// Differs says whether a running container's CPU or memory in the runtime are
// not what the pod grants it.
func Differs(c *v1.Container, have *runtime.Container) bool {
	got := have.Resources
	if got == nil || have.State != runtime.Running {
		return false
	}
	quota := Quota(c.Resources.Limits.Cpu().MilliValue())
	if quota != max(got.CpuQuota, 0) {
		return true
	}
	req := c.Resources.Requests.Cpu()
	if req.IsZero() && !c.Resources.Limits.Cpu().IsZero() {
		req = c.Resources.Limits.Cpu()
	}
	if Shares(req.MilliValue()) != max(got.CpuShares, minShares) {
		return true
	}
	return c.Resources.Limits.Memory().Value() != max(got.MemoryLimitInBytes, 0)
}
