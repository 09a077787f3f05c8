package attach

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/volume"
)

// nodeChanged looks again at the disks of a node, unless it has only said that it
// is still there.
func (c *Controller) nodeChanged(old, now *corev1.Node) {
	n := cmp.Or(now, old)
	if old != nil && now != nil && ready(old) == ready(now) && outOfService(old) == outOfService(now) &&
		slices.Equal(old.Status.VolumesInUse, now.Status.VolumesInUse) && slices.Equal(old.Status.VolumesAttached, now.Status.VolumesAttached) {
		return
	}
	c.mu.Lock()
	delete(c.departed, n.Name)
	if now == nil {
		c.departed[n.Name] = n.Status.VolumesInUse
	}
	for name, a := range c.strangers {
		if a.Spec.NodeName != n.Name {
			continue
		}
		if d, is := diskOn(n, name); is {
			delete(c.strangers, name)
			link(c.nodesOf, d, n.Name)
		}
	}
	disks := c.disksOn(n.Name)
	if now == nil && len(disks) == 0 {
		delete(c.departed, n.Name)
	}
	c.mu.Unlock()
	for _, d := range disks {
		c.queue.Add(keyOf(d))
	}
	if now != nil {
		c.queue.Add("n/" + n.Name)
	}
	if old == nil { // its pods may have been there before
		for _, p := range c.podsIn.ByIndex("spec.nodeName", n.Name) {
			for _, name := range volume.ClaimsOf(p) {
				if claim, ok := c.claimsIn.Get(p.Namespace, name); ok {
					c.wakeVolume(claim.Spec.VolumeName)
				}
			}
		}
	}
}

// report to a node what is attached to it and stays so.
func (c *Controller) report(ctx context.Context, name string) error {
	n, err := c.nodes.Get(ctx, "", name)
	if err != nil {
		return loop.IgnoreNotFound(err)
	}
	c.mu.Lock()
	disks := c.disksOn(name)
	c.mu.Unlock()
	var list []corev1.AttachedVolume
	for _, d := range disks {
		a, err := c.attachments.Get(ctx, "", d.Attachment(name))
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		if a.Status.Attached && a.DeletionTimestamp == nil && !c.leaves(a.Name) {
			list = append(list, corev1.AttachedVolume{Name: d.Name()})
		}
	}
	slices.SortFunc(list, func(a, b corev1.AttachedVolume) int { return cmp.Compare(a.Name, b.Name) })
	if slices.Equal(list, n.Status.VolumesAttached) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": n.UID}, "status": map[string]any{"volumesAttached": list}})
	if err != nil {
		return err
	}
	_, err = c.nodes.Patch(ctx, "", name, client.Patch{Type: types.MergePatchType, Data: patch}, client.WriteOptions{Subresource: "status"})
	return loop.IgnoreNotFound(err)
}

// disksOn a node, whether it needs them or not.
func (l *links) disksOn(node string) []disk {
	var disks []disk
	for d, nodes := range l.nodesOf {
		if _, on := nodes[node]; on {
			disks = append(disks, d)
		}
	}
	return disks
}

func (c *Controller) leaves(attachment string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, is := c.leaving[attachment]
	return is
}
