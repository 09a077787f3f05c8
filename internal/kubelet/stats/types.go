package stats

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Summary is what stats/summary shows (k8s.io/kubelet/pkg/apis/stats/v1alpha1), as far
// as the runtime and the kernel have figures. What is nil is not known.
type (
	Summary struct {
		Node NodeStats  `json:"node"`
		Pods []PodStats `json:"pods"`
	}
	NodeStats struct {
		NodeName  string           `json:"nodeName"`
		System    []ContainerStats `json:"systemContainers,omitempty"`
		StartTime metav1.Time      `json:"startTime"`
		CPU       *CPUStats        `json:"cpu,omitempty"`
		Memory    *MemoryStats     `json:"memory,omitempty"`
		IO        *IOStats         `json:"io,omitempty"`
		Network   *NetworkStats    `json:"network,omitempty"`
		Fs        *FsStats         `json:"fs,omitempty"`
		Runtime   *RuntimeStats    `json:"runtime,omitempty"`
		Rlimit    *RlimitStats     `json:"rlimit,omitempty"`
		Swap      *SwapStats       `json:"swap,omitempty"`
	}
	RlimitStats struct {
		Time    metav1.Time `json:"time"`
		MaxPID  *int64      `json:"maxpid,omitempty"`
		Running *int64      `json:"curproc,omitempty"`
	}
	RuntimeStats struct {
		ImageFs     *FsStats `json:"imageFs,omitempty"`
		ContainerFs *FsStats `json:"containerFs,omitempty"`
	}
	PodStats struct {
		PodRef     PodReference     `json:"podRef"`
		StartTime  metav1.Time      `json:"startTime"`
		Containers []ContainerStats `json:"containers"`
		CPU        *CPUStats        `json:"cpu,omitempty"`
		Memory     *MemoryStats     `json:"memory,omitempty"`
		IO         *IOStats         `json:"io,omitempty"`
		Network    *NetworkStats    `json:"network,omitempty"`
		Volumes    []VolumeStats    `json:"volume,omitempty"`
		Ephemeral  *FsStats         `json:"ephemeral-storage,omitempty"`
		Process    *ProcessStats    `json:"process_stats,omitempty"`
		Swap       *SwapStats       `json:"swap,omitempty"`

		pod *v1.Pod
	}
	PodReference struct {
		Name      string    `json:"name"`
		Namespace string    `json:"namespace"`
		UID       types.UID `json:"uid"`
	}
	ContainerStats struct {
		Name      string       `json:"name"`
		StartTime metav1.Time  `json:"startTime"`
		CPU       *CPUStats    `json:"cpu,omitempty"`
		Memory    *MemoryStats `json:"memory,omitempty"`
		IO        *IOStats     `json:"io,omitempty"`
		Rootfs    *FsStats     `json:"rootfs,omitempty"`
		Logs      *FsStats     `json:"logs,omitempty"`
		Swap      *SwapStats   `json:"swap,omitempty"`
	}
	ProcessStats struct {
		Count *uint64 `json:"process_count,omitempty"`
	}
	CPUStats struct {
		Time                 metav1.Time `json:"time"`
		UsageNanoCores       *uint64     `json:"usageNanoCores,omitempty"`
		UsageCoreNanoSeconds *uint64     `json:"usageCoreNanoSeconds,omitempty"`
		PSI                  *PSIStats   `json:"psi,omitempty"`
	}
	// MemoryStats of which AvailableBytes is what is left of the limit, nil without one.
	MemoryStats struct {
		Time            metav1.Time `json:"time"`
		AvailableBytes  *uint64     `json:"availableBytes,omitempty"`
		UsageBytes      *uint64     `json:"usageBytes,omitempty"`
		WorkingSetBytes *uint64     `json:"workingSetBytes,omitempty"`
		RSSBytes        *uint64     `json:"rssBytes,omitempty"`
		PageFaults      *uint64     `json:"pageFaults,omitempty"`
		MajorPageFaults *uint64     `json:"majorPageFaults,omitempty"`
		PSI             *PSIStats   `json:"psi,omitempty"`
	}
	IOStats struct {
		Time metav1.Time `json:"time"`
		PSI  *PSIStats   `json:"psi,omitempty"`
	}
	// PSIStats is how long tasks waited: totals in microseconds, averages in percent.
	PSIStats struct {
		Full PSIData `json:"full"`
		Some PSIData `json:"some"`
	}
	PSIData struct {
		Total  uint64  `json:"total"`
		Avg10  float64 `json:"avg10"`
		Avg60  float64 `json:"avg60"`
		Avg300 float64 `json:"avg300"`
	}
	SwapStats struct {
		Time           metav1.Time `json:"time"`
		AvailableBytes *uint64     `json:"swapAvailableBytes,omitempty"`
		UsageBytes     *uint64     `json:"swapUsageBytes,omitempty"`
	}
	InterfaceStats struct {
		Name     string  `json:"name"`
		RxBytes  *uint64 `json:"rxBytes,omitempty"`
		RxErrors *uint64 `json:"rxErrors,omitempty"`
		TxBytes  *uint64 `json:"txBytes,omitempty"`
		TxErrors *uint64 `json:"txErrors,omitempty"`
	}
	NetworkStats struct {
		Time metav1.Time `json:"time"`
		InterfaceStats
		Interfaces []InterfaceStats `json:"interfaces,omitempty"`
	}
	FsStats struct {
		Time           metav1.Time `json:"time"`
		AvailableBytes *uint64     `json:"availableBytes,omitempty"`
		CapacityBytes  *uint64     `json:"capacityBytes,omitempty"`
		UsedBytes      *uint64     `json:"usedBytes,omitempty"`
		InodesFree     *uint64     `json:"inodesFree,omitempty"`
		Inodes         *uint64     `json:"inodes,omitempty"`
		InodesUsed     *uint64     `json:"inodesUsed,omitempty"`
	}
	VolumeStats struct {
		FsStats
		Name   string        `json:"name,omitempty"`
		PVCRef *PVCReference `json:"pvcRef,omitempty"`
	}
	PVCReference struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	}
)
