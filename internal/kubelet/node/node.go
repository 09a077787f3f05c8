// Package node tells the API server what this node is and that it is alive: the
// Node object with its status, and the Lease.
package node

import (
	"bufio"
	"fmt"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Facts about the node at one moment.
type Facts struct {
	Name        string
	IPs         []string
	Hostname    string
	Port        int32
	Capacity    v1.ResourceList
	Allocatable v1.ResourceList
	Images      []v1.ContainerImage
	Runtime     string // "containerd://2.4.2"
	Handlers    []v1.NodeRuntimeHandler
	Features    *v1.NodeFeatures
	InUse       []v1.UniqueVolumeName // volumes that have to stay attached
	Problem     string                // why the node is not ready, "" = it is
	Pressure    Pressure
	Now         time.Time
	Info        v1.NodeSystemInfo
}

// Pressure the node is under.
type Pressure struct{ Memory, Disk, PIDs bool }

// Status of the node: the old one with everything that is the kubelet's brought
// up to date. Conditions keep their time of transition, and their heartbeat if
// nothing has changed since less than five minutes.
func Status(f *Facts, old *v1.NodeStatus) v1.NodeStatus {
	s := *old.DeepCopy()
	s.Capacity, s.Allocatable = extended(old.Capacity, f.Capacity), extended(old.Allocatable, f.Allocatable)
	s.Images, s.NodeInfo, s.VolumesInUse = f.Images, f.Info, f.InUse
	s.DaemonEndpoints.KubeletEndpoint.Port = f.Port
	s.RuntimeHandlers, s.Features = f.Handlers, f.Features
	s.Addresses = nil
	for _, ip := range f.IPs {
		s.Addresses = append(s.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip})
	}
	s.Addresses = append(s.Addresses, v1.NodeAddress{Type: v1.NodeHostName, Address: f.Hostname})
	set := func(t v1.NodeConditionType, on bool, yes, no [2]string) {
		c := v1.NodeCondition{Type: t, Status: v1.ConditionFalse, Reason: no[0], Message: no[1]}
		if on {
			c.Status, c.Reason, c.Message = v1.ConditionTrue, yes[0], yes[1]
		}
		condition(&s, c, f.Now)
	}
	set(v1.NodeMemoryPressure, f.Pressure.Memory, [2]string{"KubeletHasInsufficientMemory", "kubelet has insufficient memory available"}, [2]string{"KubeletHasSufficientMemory", "kubelet has sufficient memory available"})
	set(v1.NodeDiskPressure, f.Pressure.Disk, [2]string{"KubeletHasDiskPressure", "kubelet has disk pressure"}, [2]string{"KubeletHasNoDiskPressure", "kubelet has no disk pressure"})
	set(v1.NodePIDPressure, f.Pressure.PIDs, [2]string{"KubeletHasInsufficientPID", "kubelet has insufficient PID available"}, [2]string{"KubeletHasSufficientPID", "kubelet has sufficient PID available"})
	set(v1.NodeReady, f.Problem == "", [2]string{"KubeletReady", "kubelet is posting ready status"}, [2]string{"KubeletNotReady", f.Problem})
	if len(old.Conditions) > 0 && equality.Semantic.DeepEqual(withoutBeats(old), withoutBeats(&s)) && f.Now.Sub(beat(old)) < reportEvery {
		return *old
	}
	return s
}

// extended adds the resources that somebody else has announced for the node.
func extended(old, own v1.ResourceList) v1.ResourceList {
	all := own.DeepCopy()
	for name, q := range old {
		if _, ok := all[name]; !ok && strings.Contains(string(name), "/") {
			all[name] = q
		}
	}
	return all
}

// reportEvery is how often a status is written that has not changed.
const reportEvery = 5 * time.Minute

func condition(s *v1.NodeStatus, c v1.NodeCondition, now time.Time) {
	c.LastHeartbeatTime = metav1.Time{Time: now.Truncate(time.Second)}
	c.LastTransitionTime = c.LastHeartbeatTime
	i := slices.IndexFunc(s.Conditions, func(o v1.NodeCondition) bool { return o.Type == c.Type })
	if i < 0 {
		s.Conditions = append(s.Conditions, c)
		return
	}
	if s.Conditions[i].Status == c.Status {
		c.LastTransitionTime = s.Conditions[i].LastTransitionTime
	}
	s.Conditions[i] = c
}

func withoutBeats(s *v1.NodeStatus) *v1.NodeStatus {
	c := s.DeepCopy()
	for i := range c.Conditions {
		c.Conditions[i].LastHeartbeatTime = metav1.Time{}
	}
	return c
}

func beat(s *v1.NodeStatus) (last time.Time) {
	for _, c := range s.Conditions {
		if c.Type == v1.NodeReady {
			last = c.LastHeartbeatTime.Time
		}
	}
	return last
}

// Labels that every node gives itself.
func Labels(hostname string) map[string]string {
	return map[string]string{
		v1.LabelHostname: hostname, v1.LabelArchStable: goruntime.GOARCH, v1.LabelOSStable: goruntime.GOOS,
		"beta.kubernetes.io/arch": goruntime.GOARCH, "beta.kubernetes.io/os": goruntime.GOOS,
	}
}

// System facts that do not change while the machine runs.
func System(kubelet, runtime string) v1.NodeSystemInfo {
	read := func(path string) string {
		b, _ := os.ReadFile(path)
		return strings.TrimSpace(string(b))
	}
	i := v1.NodeSystemInfo{
		MachineID: read("/etc/machine-id"), SystemUUID: read("/sys/class/dmi/id/product_uuid"), BootID: read("/proc/sys/kernel/random/boot_id"),
		KernelVersion: read("/proc/sys/kernel/osrelease"), OSImage: osImage(), ContainerRuntimeVersion: runtime,
		KubeletVersion: kubelet, OperatingSystem: goruntime.GOOS, Architecture: goruntime.GOARCH,
	}
	if i.SystemUUID == "" {
		i.SystemUUID = i.MachineID
	}
	return i
}

func osImage() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return goruntime.GOOS
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return goruntime.GOOS
}

// Capacity of the machine; disk is that of the file system root is on.
func Capacity(root string, maxPods int) (v1.ResourceList, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return nil, fmt.Errorf("file system of %s: %w", root, err)
	}
	total, err := meminfo("MemTotal")
	if err != nil {
		return nil, err
	}
	list := v1.ResourceList{
		v1.ResourceCPU:              *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI),
		v1.ResourceMemory:           *resource.NewQuantity(total, resource.BinarySI),
		v1.ResourcePods:             *resource.NewQuantity(int64(maxPods), resource.DecimalSI),
		v1.ResourceEphemeralStorage: *resource.NewQuantity(int64(st.Blocks)*st.Bsize, resource.BinarySI),
	}
	pages, _ := os.ReadDir("/sys/kernel/mm/hugepages")
	for _, p := range pages {
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(p.Name(), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		b, _ := os.ReadFile("/sys/kernel/mm/hugepages/" + p.Name() + "/nr_hugepages")
		n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		size := resource.NewQuantity(kb<<10, resource.BinarySI)
		list[v1.ResourceName(v1.ResourceHugePagesPrefix+size.String())] = *resource.NewQuantity(n*kb<<10, resource.BinarySI)
	}
	return list, nil
}

// meminfo value in bytes.
func meminfo(name string) (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if w := strings.Fields(lines.Text()); len(w) > 1 && w[0] == name+":" {
			kb, err := strconv.ParseInt(w[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/meminfo says nothing of %s", name)
}

// Available memory in bytes.
func Available() (int64, error) { return meminfo("MemAvailable") }

// Swap says whether the machine has any.
func Swap() bool {
	b, _ := os.ReadFile("/proc/swaps")
	return strings.Count(strings.TrimSpace(string(b)), "\n") > 0
}
