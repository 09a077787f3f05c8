package csi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/client"
)

// nodeIDs is the annotation that says which id each driver has given the node.
const nodeIDs = "csi.volume.kubernetes.io/nodeid"

// attempts at a write that others were faster with.
const attempts = 5

// install writes what a driver says about the node to the Node (its id, labels of
// its topology) and to the CSINode.
func (m *Manager) install(ctx context.Context, i nodeInfo) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	nodes := client.For[*v1.Node](m.Conn)
	node, err := nodes.Get(ctx, "", m.Node)
	if err != nil {
		return fmt.Errorf("error updating Node object with CSI driver node info: %w", err)
	}
	patch, err := nodePatch(node, i.driver, &i)
	if err != nil {
		return fmt.Errorf("error updating Node object with CSI driver node info: %w", err)
	}
	if patch != nil {
		if _, err := nodes.Patch(ctx, "", m.Node, client.Patch{Type: types.MergePatchType, Data: patch}, client.WriteOptions{}); err != nil {
			return fmt.Errorf("error updating Node object with CSI driver node info: %w", err)
		}
	}
	err = m.csiNode(ctx, node, func(drivers []storagev1.CSINodeDriver) []storagev1.CSINodeDriver {
		return append(without(drivers, i.driver), i.object())
	})
	if err != nil {
		return fmt.Errorf("error updating CSINode object with CSI driver node info: %w", err)
	}
	return nil
}

// uninstall takes a driver off the Node and the CSINode.
func (m *Manager) uninstall(ctx context.Context, driver string) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	nodes := client.For[*v1.Node](m.Conn)
	node, err := nodes.Get(ctx, "", m.Node)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := m.csiNode(ctx, node, func(drivers []storagev1.CSINodeDriver) []storagev1.CSINodeDriver { return without(drivers, driver) }); err != nil {
		return err
	}
	patch, err := nodePatch(node, driver, nil)
	if err == nil && patch != nil {
		_, err = nodes.Patch(ctx, "", m.Node, client.Patch{Type: types.MergePatchType, Data: patch}, client.WriteOptions{})
	}
	return err
}

// nodePatch brings annotation and labels of a node in line with what a driver says,
// nil = the driver is gone; its labels stay, since volumes may need them. A nil patch
// means that all is as it should be.
func nodePatch(node *v1.Node, driver string, i *nodeInfo) ([]byte, error) {
	ids := map[string]string{}
	if text := node.Annotations[nodeIDs]; text != "" {
		if err := json.Unmarshal([]byte(text), &ids); err != nil {
			return nil, fmt.Errorf("failed to parse node's %q annotation value (%q) err=%w", nodeIDs, text, err)
		}
	}
	was, had := ids[driver]
	labels := map[string]string{}
	if i == nil {
		if !had {
			return nil, nil
		}
		delete(ids, driver)
	} else {
		ids[driver] = i.id
		for key, v := range i.topology {
			switch have, is := node.Labels[key]; {
			case is && have != v:
				return nil, fmt.Errorf("detected topology value collision: driver reported %q:%q but existing label is %q:%q", key, v, key, have)
			case !is:
				labels[key] = v
			}
		}
		if had && was == i.id && len(labels) == 0 {
			return nil, nil
		}
	}
	var annotation any // nil takes it away
	if len(ids) > 0 {
		text, err := json.Marshal(ids)
		if err != nil {
			return nil, err
		}
		annotation = string(text)
	}
	meta := map[string]any{"annotations": map[string]any{nodeIDs: annotation}}
	if len(labels) > 0 {
		meta["labels"] = labels
	}
	return json.Marshal(map[string]any{"metadata": meta})
}

// csiNode changes the node's CSINode, made if it is not there or is another node's.
func (m *Manager) csiNode(ctx context.Context, node *v1.Node, change func([]storagev1.CSINodeDriver) []storagev1.CSINodeDriver) (err error) {
	c := client.For[*storagev1.CSINode](m.Conn)
	for range attempts {
		var now *storagev1.CSINode
		now, err = c.Get(ctx, "", m.Node)
		switch {
		case apierrors.IsNotFound(err):
			drivers := change(nil)
			if len(drivers) == 0 {
				return nil
			}
			_, err = c.Create(ctx, &storagev1.CSINode{
				ObjectMeta: metav1.ObjectMeta{Name: m.Node, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}},
				Spec:       storagev1.CSINodeSpec{Drivers: drivers},
			})
		case err != nil:
			return err
		case !slices.ContainsFunc(now.OwnerReferences, func(o metav1.OwnerReference) bool { return o.Kind == "Node" && o.UID == node.UID }):
			if err = c.Delete(ctx, "", m.Node, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(now.UID))}); err == nil {
				continue
			}
		default:
			fresh := now.DeepCopy()
			fresh.Spec.Drivers = change(fresh.Spec.Drivers)
			if same(now.Spec.Drivers, fresh.Spec.Drivers) {
				return nil
			}
			_, err = c.Update(ctx, fresh)
		}
		if err == nil || !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return err
}

func without(drivers []storagev1.CSINodeDriver, name string) []storagev1.CSINodeDriver {
	return slices.DeleteFunc(slices.Clone(drivers), func(d storagev1.CSINodeDriver) bool { return d.Name == name })
}

// same drivers, in whatever order.
func same(a, b []storagev1.CSINodeDriver) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		i := slices.IndexFunc(b, func(y storagev1.CSINodeDriver) bool { return y.Name == x.Name })
		if i < 0 || b[i].NodeID != x.NodeID || !slices.Equal(b[i].TopologyKeys, x.TopologyKeys) || count(b[i]) != count(x) {
			return false
		}
	}
	return true
}

func count(d storagev1.CSINodeDriver) int32 {
	if d.Allocatable == nil || d.Allocatable.Count == nil {
		return 0
	}
	return *d.Allocatable.Count
}

// object is the driver's part of the CSINode.
func (i nodeInfo) object() storagev1.CSINodeDriver {
	d := storagev1.CSINodeDriver{Name: i.driver, NodeID: i.id, TopologyKeys: slices.Sorted(maps.Keys(i.topology))}
	if i.limit > 0 {
		n := int32(min(i.limit, math.MaxInt32))
		d.Allocatable = &storagev1.VolumeNodeResources{Count: &n}
	}
	return d
}
