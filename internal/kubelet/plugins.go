package kubelet

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/kubelet/csi"
	"github.com/proa-dev/proa/internal/kubelet/device"
	"github.com/proa-dev/proa/internal/kubelet/dra"
	"github.com/proa-dev/proa/internal/kubelet/plugin"
	"github.com/proa-dev/proa/internal/kubelet/pod"
)

// drivers makes what serves pods through drivers. There is none at first, and
// nothing is done until one comes.
func (k *kubelet) drivers(ctx context.Context) (err error) {
	k.csi = csi.New(ctx, csi.Config{
		Root: plugin.Root(k.RootDir), Node: k.Name, Conn: k.Conn, Events: k.events, Log: k.log,
		Self: k.following, Secret: k.sources.Secret, Token: k.sources.Token, Used: k.reportSoon, Came: k.driverCame,
	})
	k.volumes.CSI = k.csi
	k.dra, err = dra.New(ctx, dra.Config{Root: plugin.Root(k.RootDir), Conn: k.Conn, Log: k.log, Came: k.driverCame, Left: k.driverLeft, Sick: k.devicesSick})
	if err == nil {
		k.devices, err = device.New(ctx, device.Config{Root: plugin.Root(k.RootDir), Log: k.log, Changed: k.reportSoon})
	}
	return err
}

// driverLeft takes back what a DRA driver has published about the node's devices.
func (k *kubelet) driverLeft(ctx context.Context, driver string) error {
	c, ok := k.Conn.(client.Collector)
	if !ok {
		return fmt.Errorf("the connection to the API server cannot delete all ResourceSlices of a driver at once")
	}
	return c.DeleteAll(ctx, client.For[*resourcev1.ResourceSlice](k.Conn).Kind(), "", "spec.nodeName="+k.Name+",spec.driver="+driver)
}

// plugins are followed as they come and go.
func (k *kubelet) plugins(ctx context.Context) error {
	w := &plugin.Watcher{Root: plugin.Root(k.RootDir), Log: k.log, Handlers: map[string]plugin.Handler{"CSIPlugin": k.csi, "DRAPlugin": k.dra, "DevicePlugin": k.devices}}
	return w.Run(ctx)
}

// driverCame tries again what may have failed for want of a driver.
func (k *kubelet) driverCame() {
	k.tellAll(func(w *worker) {
		if !w.st.Volumes && w.fails > 0 {
			w.st.Remount = w.st.Now
		}
		if w.st.Pod != nil && dra.Uses(w.st.Pod) {
			w.st.Retry = w.st.Now
		}
	})
}

// devicesSick has the status of pods written anew.
func (k *kubelet) devicesSick(pods []types.UID) {
	for _, uid := range pods {
		k.tell(uid, func(*worker) {})
	}
}

// reportSoon has the node's status written without waiting for its turn.
func (k *kubelet) reportSoon() {
	select {
	case k.due <- struct{}{}:
	default:
	}
}

// following is the node object, and a channel that is closed when it is another.
func (k *kubelet) following() (*v1.Node, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.selfChanged == nil {
		k.selfChanged = make(chan struct{})
	}
	return k.self, k.selfChanged
}

// grant the devices that a pod asks for of plugins; false = it cannot run here.
func (w *worker) devices(ctx context.Context) bool {
	k, p := w.k, w.st.Pod
	if !k.devices.Wants(p) {
		return true
	}
	err := k.devices.Allocate(ctx, p)
	if err == nil || ctx.Err() != nil {
		return true
	}
	message := fmt.Sprintf("Allocate failed due to %v, which is unexpected", err)
	k.events.Warning(ref(p, ""), "UnexpectedAdmissionError", "%s", message)
	w.end(pod.End{Phase: v1.PodFailed, Reason: "UnexpectedAdmissionError", Message: "Pod was rejected: " + message})
	return false
}
