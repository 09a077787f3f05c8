package clients

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// kubelet that this test plays: pods that are bound to its node run at once, those
// of image job:1 succeed, those of image broken:1 never get ready, and what is to be
// deleted goes.
type kubelet struct {
	api *kubernetes.Clientset
	mu  sync.Mutex
	ran []string // first arguments of jobs, in order
}

const nodeName = "played"

func startKubelet(t *testing.T, api *kubernetes.Clientset) *kubelet {
	t.Helper()
	k := &kubelet{api: api}
	room := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("100"), corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("16Gi")}
	must(api.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName, Labels: map[string]string{corev1.LabelOSStable: "linux"}}}, metav1.CreateOptions{}))(t)
	status := must(json.Marshal(map[string]any{"status": map[string]any{"capacity": room, "allocatable": room, "conditions": []corev1.NodeCondition{
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Played", LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()},
	}}}))(t)
	must(api.CoreV1().Nodes().PatchStatus(t.Context(), nodeName, status))(t)

	factory := informers.NewSharedInformerFactoryWithOptions(api, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", nodeName).String()
	}))
	ctx, stop := context.WithCancel(t.Context())
	must(factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { k.sync(ctx, obj.(*corev1.Pod)) },
		UpdateFunc: func(_, obj any) { k.sync(ctx, obj.(*corev1.Pod)) },
	}))(t)
	factory.Start(ctx.Done())
	var wg sync.WaitGroup
	wg.Go(func() { k.renew(ctx) })
	t.Cleanup(func() { stop(); factory.Shutdown(); wg.Wait() })
	return k
}

// sync a pod's status. An object that changed meanwhile comes again.
func (k *kubelet) sync(ctx context.Context, pod *corev1.Pod) {
	pods := k.api.CoreV1().Pods(pod.Namespace)
	if pod.DeletionTimestamp != nil {
		_ = pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
		return
	}
	if pod.Status.Phase != corev1.PodPending {
		return
	}
	pod = pod.DeepCopy()
	c := pod.Spec.Containers[0]
	now := metav1.Now()
	status := corev1.ContainerStatus{Name: c.Name, Image: c.Image, Ready: c.Image != "broken:1", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}
	ready := corev1.ConditionTrue
	pod.Status.Phase, pod.Status.StartTime, pod.Status.PodIP = corev1.PodRunning, &now, "10.200.0.1"
	pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
	switch c.Image {
	case "job:1":
		ready, status.Ready, pod.Status.Phase = corev1.ConditionFalse, false, corev1.PodSucceeded
		status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: now, FinishedAt: now}}
	case "broken:1":
		ready = corev1.ConditionFalse
	}
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: ready, LastTransitionTime: now},
		corev1.PodCondition{Type: corev1.ContainersReady, Status: ready, LastTransitionTime: now})
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{status}
	if _, err := pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err == nil && c.Image == "job:1" {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.ran = append(k.ran, strings.Join(c.Args, " "))
	}
}

// took returns what jobs ran since it was asked last.
func (k *kubelet) took() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := strings.Join(k.ran, " ")
	k.ran = nil
	return all
}

// renew the lease of the node.
func (k *kubelet) renew(ctx context.Context) {
	leases := k.api.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	for tick := time.NewTicker(10 * time.Second); ; {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: nodeName}, Spec: coordinationv1.LeaseSpec{
			HolderIdentity: ptr.To(nodeName), LeaseDurationSeconds: ptr.To[int32](40), RenewTime: &metav1.MicroTime{Time: time.Now()},
		}}
		if _, err := leases.Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
			_, _ = leases.Create(ctx, lease, metav1.CreateOptions{})
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}
