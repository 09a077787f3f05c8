// Package cgroup keeps the tree of control groups below which the runtime puts
// the containers: ROOT/kubepods/{,burstable/,besteffort/}podUID, on cgroup v1,
// v2 and hosts that have both. It writes files only; drivers that go through
// systemd get the same names as slices from the runtime.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/kubelet/pod"
)

const mountPoint = "/sys/fs/cgroup"

// sharesOfDefault are the CPU shares that v2's default weight (100) stands for.
const sharesOfDefault = 2598

// Tree of control groups of one node.
type Tree struct {
	root        string // "/" or the cgroup that all of the node's are below
	systemd     bool
	v2          bool
	controllers []string // v1: the folders of mountPoint that are hierarchies
}

// New finds out how control groups are laid out. root is made if it is not there.
func New(root, driver string) (*Tree, error) {
	t := &Tree{root: filepath.Clean("/" + root), systemd: driver == "systemd"}
	var st unix.Statfs_t
	if err := unix.Statfs(mountPoint, &st); err != nil {
		return nil, fmt.Errorf("control groups are not mounted at %s: %w", mountPoint, err)
	}
	t.v2 = int64(st.Type) == unix.CGROUP2_SUPER_MAGIC
	if !t.v2 {
		for _, c := range []string{"cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "devices", "freezer", "hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "systemd"} {
			if info, err := os.Lstat(filepath.Join(mountPoint, c)); err == nil && info.IsDir() {
				t.controllers = append(t.controllers, c)
			}
		}
		for _, need := range []string{"cpu", "memory", "pids"} {
			if _, err := os.Stat(filepath.Join(mountPoint, need)); err != nil {
				return nil, fmt.Errorf("the kernel offers no %s control groups; boot with cgroup_enable=%s", need, need)
			}
		}
	}
	// All pods together weigh what the machine has, as if they had asked for it;
	// a group counts as one process otherwise, however many CPUs there are. The root
	// above them, if it is made for this node alone, weighs the same.
	n := pod.Shares(int64(1000 * runtime.NumCPU()))
	if t.v2 {
		n = max(n, sharesOfDefault)
	}
	whole := t.shares(n)
	weights := map[string]map[string]string{"kubepods": whole, "kubepods/besteffort": t.shares(2)}
	if _, err := os.Stat(t.dir("cpu", "")); errors.Is(err, fs.ErrNotExist) {
		weights[""] = whole
	}
	for _, name := range []string{"", "kubepods", "kubepods/besteffort", "kubepods/burstable"} {
		if err := t.make(name, weights[name]); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// V2 says whether the host has the unified hierarchy.
func (t *Tree) V2() bool { return t.v2 }

// Driver the runtime has to use: "cgroupfs" or "systemd".
func (t *Tree) Driver() string {
	if t.systemd {
		return "systemd"
	}
	return "cgroupfs"
}

func (t *Tree) name(p *v1.Pod) string {
	switch pod.QOS(p) {
	case v1.PodQOSGuaranteed:
		return "kubepods/pod" + string(p.UID)
	case v1.PodQOSBestEffort:
		return "kubepods/besteffort/pod" + string(p.UID)
	}
	return "kubepods/burstable/pod" + string(p.UID)
}

// Parent of a pod's sandbox, in the form the runtime's driver expects.
func (t *Tree) Parent(p *v1.Pod) string { return t.external(t.name(p)) }

// external name: with systemd "kubepods/burstable/podX" is kubepods-burstable-podX.slice.
func (t *Tree) external(name string) string {
	if !t.systemd {
		return filepath.Join(t.root, name)
	}
	return t.slice(name)
}

func (t *Tree) slice(name string) string {
	full := strings.Trim(filepath.Join(t.root, name), "/")
	return strings.ReplaceAll(strings.ReplaceAll(full, "-", "_"), "/", "-") + ".slice"
}

// path below a hierarchy.
func (t *Tree) path(name string) string {
	full := strings.Trim(filepath.Join(t.root, name), "/")
	if !t.systemd || full == "" {
		return full
	}
	var dirs []string
	done := ""
	for _, part := range strings.Split(full, "/") {
		done = strings.TrimPrefix(done+"-"+strings.ReplaceAll(part, "-", "_"), "-")
		dirs = append(dirs, done+".slice")
	}
	return filepath.Join(dirs...)
}

// Path of a pod's control group for one controller (v1) or all (v2).
func (t *Tree) Path(p *v1.Pod, controller string) string { return t.dir(controller, t.name(p)) }

// Pods is the path of the group that all pods are in.
func (t *Tree) Pods(controller string) string { return t.dir(controller, "kubepods") }

// Host is the path of the group that everything on the machine is in.
func (t *Tree) Host(controller string) string {
	if t.v2 {
		return mountPoint
	}
	return filepath.Join(mountPoint, controller)
}

func (t *Tree) dir(controller, name string) string {
	if t.v2 {
		return filepath.Join(mountPoint, t.path(name))
	}
	return filepath.Join(mountPoint, controller, t.path(name))
}

// make a control group in every hierarchy, and set values.
func (t *Tree) make(name string, values map[string]string) error {
	if t.v2 {
		dir := t.dir("", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		t.delegate(dir)
		return t.set(name, values)
	}
	for _, c := range t.controllers {
		dir := t.dir(c, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if c == "cpuset" {
			inherit(dir)
		}
	}
	return t.set(name, values)
}

// delegate the controllers that are there to the groups below.
func (t *Tree) delegate(dir string) {
	b, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	for _, c := range strings.Fields(string(b)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644)
	}
}

// inherit CPUs and memory nodes: a new cpuset group on v1 has none.
func inherit(dir string) {
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		if b, _ := os.ReadFile(filepath.Join(dir, f)); strings.TrimSpace(string(b)) != "" {
			continue
		}
		above, _ := os.ReadFile(filepath.Join(filepath.Dir(dir), f))
		_ = os.WriteFile(filepath.Join(dir, f), above, 0o644)
	}
}

// set values; the names are v1's controllers and files, or v2's files.
func (t *Tree) set(name string, values map[string]string) error {
	for file, value := range values {
		controller, _, _ := strings.Cut(file, ".")
		err := os.WriteFile(filepath.Join(t.dir(controller, name), file), []byte(value), 0o644)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set %s of control group %s to %s: %w", file, name, value, err)
		}
	}
	return nil
}

func (t *Tree) shares(n int64) map[string]string {
	if t.v2 {
		return map[string]string{"cpu.weight": strconv.FormatInt(1+(n-2)*9999/262142, 10)}
	}
	return map[string]string{"cpu.shares": strconv.FormatInt(n, 10)}
}

// Create or update the control group of a pod with the sums of its resources.
func (t *Tree) Create(p *v1.Pod, pids int64) error {
	name := t.name(p)
	if t.systemd {
		return nil // systemd makes slices with the first scope in them
	}
	if err := t.make(name, t.limits(p)); err != nil {
		return err
	}
	if pids > 0 {
		return t.set(name, map[string]string{"pids.max": strconv.FormatInt(pids, 10)})
	}
	return nil
}

// Widen the limits of a pod to those wanted where these are higher.
func (t *Tree) Widen(p *v1.Pod) error {
	name, want := t.name(p), t.limits(p)
	for file, value := range want {
		controller, _, _ := strings.Cut(file, ".")
		b, _ := os.ReadFile(filepath.Join(t.dir(controller, name), file))
		have, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
		now, err1 := strconv.ParseInt(have, 10, 64)
		next, err2 := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
		if have == "max" || err1 == nil && err2 == nil && (now < 0 || next >= 0 && next < now) {
			delete(want, file)
		}
	}
	return t.set(name, want)
}

func (t *Tree) limits(p *v1.Pod) map[string]string {
	cpu, cpuLimit, memory := Totals(p)
	v := t.shares(pod.Shares(cpu))
	quota := pod.Quota(cpuLimit)
	switch {
	case t.v2 && quota > 0:
		v["cpu.max"] = fmt.Sprintf("%d 100000", quota)
	case t.v2:
		v["cpu.max"] = "max 100000"
	case quota > 0:
		v["cpu.cfs_quota_us"] = strconv.FormatInt(quota, 10)
	default:
		v["cpu.cfs_quota_us"] = "-1"
	}
	switch {
	case t.v2 && memory > 0:
		v["memory.max"] = strconv.FormatInt(memory, 10)
	case t.v2:
		v["memory.max"] = "max"
	case memory > 0:
		v["memory.limit_in_bytes"] = strconv.FormatInt(memory, 10)
	default:
		v["memory.limit_in_bytes"] = "-1"
	}
	return v
}

// Totals of a pod: CPU request and limit in milli, memory limit in bytes; a limit
// is 0 when a container has none.
func Totals(p *v1.Pod) (cpu, cpuLimit, memory int64) {
	limited := [2]bool{true, true}
	add := func(c *v1.Container) (req, lim, mem int64) {
		l := c.Resources.Limits
		limited[0] = limited[0] && !l.Cpu().IsZero()
		limited[1] = limited[1] && !l.Memory().IsZero()
		req = c.Resources.Requests.Cpu().MilliValue()
		if _, ok := c.Resources.Requests[v1.ResourceCPU]; !ok {
			req = l.Cpu().MilliValue()
		}
		return req, l.Cpu().MilliValue(), l.Memory().Value()
	}
	for i := range p.Spec.Containers {
		a, b, c := add(&p.Spec.Containers[i])
		cpu, cpuLimit, memory = cpu+a, cpuLimit+b, memory+c
	}
	var side, most [3]int64
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		a, b, m := add(c)
		if pod.Sidecar(c) {
			side[0], side[1], side[2] = side[0]+a, side[1]+b, side[2]+m
			a, b, m = 0, 0, 0
		}
		most[0], most[1], most[2] = max(most[0], side[0]+a), max(most[1], side[1]+b), max(most[2], side[2]+m)
	}
	cpu, cpuLimit, memory = max(cpu+side[0], most[0]), max(cpuLimit+side[1], most[1]), max(memory+side[2], most[2])
	over := p.Spec.Overhead
	cpu += over.Cpu().MilliValue()
	if cpuLimit > 0 {
		cpuLimit += over.Cpu().MilliValue()
	}
	if memory > 0 {
		memory += over.Memory().Value()
	}
	if r := p.Spec.Resources; r != nil {
		if q, ok := r.Requests[v1.ResourceCPU]; ok {
			cpu = q.MilliValue()
		}
		if q, ok := r.Limits[v1.ResourceCPU]; ok {
			cpuLimit, limited[0] = q.MilliValue(), true
		}
		if q, ok := r.Limits[v1.ResourceMemory]; ok {
			memory, limited[1] = q.Value(), true
		}
	}
	if !limited[0] {
		cpuLimit = 0
	}
	if !limited[1] {
		memory = 0
	}
	return cpu, cpuLimit, memory
}

// Remove the control group of a pod, once nothing runs in it any more.
func (t *Tree) Remove(uid types.UID) error {
	var errs []error
	for _, name := range []string{"kubepods/pod", "kubepods/besteffort/pod", "kubepods/burstable/pod"} {
		for _, c := range t.hierarchies() {
			dir := t.dir(c, name+string(uid))
			if _, err := os.Lstat(dir); err == nil {
				errs = append(errs, remove(dir))
			}
		}
	}
	return errors.Join(errs...)
}

func (t *Tree) hierarchies() []string {
	if t.v2 {
		return []string{""}
	}
	return t.controllers
}

// remove a group and those below it; the kernel may need a moment after the last
// process has gone.
func remove(dir string) error {
	var subs []string
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			subs = append(subs, path)
		}
		return nil
	})
	deadline := time.Now().Add(time.Second)
	for i := len(subs) - 1; i >= 0; i-- {
		for {
			err := unix.Rmdir(subs[i])
			if err == nil || errors.Is(err, unix.ENOENT) {
				break
			}
			if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
				return fmt.Errorf("remove control group %s: %w", subs[i], err)
			}
			_, _ = unix.Poll(nil, 5)
		}
	}
	return nil
}

// Burstable sets the CPU shares of all burstable pods together.
func (t *Tree) Burstable(milli int64) error {
	return t.set("kubepods/burstable", t.shares(pod.Shares(milli)))
}
