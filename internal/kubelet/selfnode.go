package kubelet

import (
	"context"
	"encoding/json"
	"maps"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/kubelet/node"
)

// Version the node says its kubelet is of.
const Version = "v1.36.3"

const (
	lookEvery = 10 * time.Second
	lookSoon  = 100 * time.Millisecond // while the node is not ready: the runtime tells nobody when its network is
)

// resources of the node: what it has, and what pods may have of it.
func (k *kubelet) resources() (capacity, allocatable v1.ResourceList) {
	capacity, err := node.Capacity(k.RootDir, k.MaxPods)
	if err != nil {
		k.log.Error("capacity of the node", "err", err)
		capacity = v1.ResourceList{}
	}
	allocatable = capacity.DeepCopy()
	for name, q := range k.Reserved {
		left := allocatable[name]
		left.Sub(q)
		allocatable[name] = left
	}
	return capacity, allocatable
}

// nodeObject as the API server last showed it, nil if it has not yet.
func (k *kubelet) nodeObject() *v1.Node {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.self
}

func (k *kubelet) setSelf(n *v1.Node) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.self == nil || k.self.UID != n.UID || later(n.ResourceVersion, k.self.ResourceVersion) {
		k.self = n
		if k.selfChanged != nil {
			close(k.selfChanged)
			k.selfChanged = nil
		}
	}
}

// runNode registers the node, and then keeps its status and its lease.
func (k *kubelet) runNode(ctx context.Context) error {
	nodes := client.For[*v1.Node](k.Conn)
	for {
		err := k.register(ctx, nodes)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		k.log.Warn("node not registered", "err", err)
		pause(ctx, time.Second)
	}
	go func() {
		_ = node.Beat(ctx, k.Conn, k.Name, func() types.UID {
			if n := k.nodeObject(); n != nil {
				return n.UID
			}
			return ""
		}, func(err error) { k.log.Warn("lease not renewed", "err", err) })
	}()
	k.events.Normal(k.nodeRef(), "Starting", "Starting kubelet.")
	i := client.NewInformer[*v1.Node](k.Conn, client.Scope{Name: k.Name})
	i.OnChange(func(_, now *v1.Node) {
		if now != nil {
			k.setSelf(now)
		} else {
			k.reportSoon() // which finds that it has to register again
		}
	})
	go func() { _ = i.Run(ctx) }()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := k.report(ctx, nodes); err != nil && ctx.Err() == nil {
			k.log.Warn("node status not written", "err", err)
			if apierrors.IsNotFound(err) {
				if err := k.register(ctx, nodes); err != nil && ctx.Err() == nil {
					k.log.Warn("node not registered", "err", err)
				}
			}
		}
		var soon <-chan time.Time
		if !k.ready() {
			soon = time.After(lookSoon)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-soon:
		case <-k.due:
		}
	}
}

// ready says whether the node was when it was last looked at.
func (k *kubelet) ready() bool {
	n := k.nodeObject()
	if n == nil {
		return false
	}
	for _, c := range n.Status.Conditions {
		if c.Type == v1.NodeReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

func (k *kubelet) nodeRef() v1.ObjectReference {
	return v1.ObjectReference{Kind: "Node", Name: k.Name, UID: types.UID(k.Name)}
}

// register the node, or bring labels and annotations of the one there up to date.
func (k *kubelet) register(ctx context.Context, nodes client.Client[*v1.Node]) error {
	labels := node.Labels(k.Name)
	for key, v := range k.Labels {
		labels[key] = v
	}
	n, err := nodes.Get(ctx, "", k.Name)
	if apierrors.IsNotFound(err) {
		n = &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.Name, Labels: labels, Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}}
		n.Spec.Taints, n.Spec.ProviderID, n.Spec.PodCIDRs = k.Taints, k.ProviderID, k.PodCIDRs
		if len(k.PodCIDRs) > 0 {
			n.Spec.PodCIDR = k.PodCIDRs[0]
		}
		n.Status = node.Status(k.facts(ctx), &n.Status)
		if n, err = nodes.Create(ctx, n); err != nil {
			return err
		}
		k.setSelf(n)
		go k.csi.Again(ctx)
		return nil
	}
	if err != nil {
		return err
	}
	k.setSelf(n)
	same := true
	for key, v := range labels {
		same = same && n.Labels[key] == v
	}
	if same {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		return err
	}
	n, err = nodes.Patch(ctx, "", k.Name, client.Patch{Type: types.StrategicMergePatchType, Data: patch}, client.WriteOptions{})
	if err == nil {
		k.setSelf(n)
	}
	return err
}

// facts about the node now.
func (k *kubelet) facts(ctx context.Context) *node.Facts {
	f := &node.Facts{
		Name: k.Name, IPs: k.IPs, Hostname: k.Name, Port: int32(k.Port), Now: time.Now(),
		Runtime: k.features.Name + "://" + k.features.Version, Pressure: k.pressure.now(), Features: &v1.NodeFeatures{SupplementalGroupsPolicy: &k.features.Groups},
	}
	f.Capacity, f.Allocatable = k.resources()
	all, healthy := k.devices.Capacity()
	maps.Copy(f.Capacity, all)
	maps.Copy(f.Allocatable, healthy)
	f.InUse = k.csi.InUse()
	f.Info = node.System(Version, f.Runtime)
	for _, h := range k.features.Handlers {
		rro, ns := h.GetFeatures().GetRecursiveReadOnlyMounts(), h.GetFeatures().GetUserNamespaces()
		f.Handlers = append(f.Handlers, v1.NodeRuntimeHandler{Name: h.Name, Features: &v1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: &rro, UserNamespaces: &ns}})
	}
	cctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	f.Problem = k.rt.Healthy(cctx)
	images, err := k.images.List(cctx)
	if err != nil {
		k.log.Warn("images on the node", "err", err)
		if n := k.nodeObject(); n != nil {
			images = n.Status.Images
		}
	}
	f.Images = images
	return f
}

// report the node's status if it has changed, or it is time.
func (k *kubelet) report(ctx context.Context, nodes client.Client[*v1.Node]) error {
	n := k.nodeObject()
	if n == nil {
		return nil
	}
	want := node.Status(k.facts(ctx), &n.Status)
	if equality.Semantic.DeepEqual(want, n.Status) {
		return nil
	}
	a, err := json.Marshal(v1.Node{Status: n.Status})
	if err != nil {
		return err
	}
	b, err := json.Marshal(v1.Node{Status: want})
	if err != nil {
		return err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(a, b, v1.Node{})
	if err != nil {
		return err
	}
	got, err := nodes.Patch(ctx, "", k.Name, client.Patch{Type: types.StrategicMergePatchType, Data: patch}, client.WriteOptions{Subresource: "status"})
	if err == nil {
		k.setSelf(got)
	}
	return err
}
