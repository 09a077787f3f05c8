package scheduler

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-dev/proa/internal/api"
)

// owners knows which pods belong together: those that a Service or a controller
// selects. The profile's spread constraints count them, for pods without
// constraints of their own.
type owners struct {
	services  map[string]map[string]labels.Set // by namespace and name
	selectors map[string]labels.Selector       // of controllers, by ownerKey
	epochs    map[string]uint64                // move when anything changes in a namespace
}

func newOwners() owners {
	return owners{services: map[string]map[string]labels.Set{}, selectors: map[string]labels.Selector{}, epochs: map[string]uint64{}}
}

// set takes in a Service or controller that came, changed or (now nil) went.
func (o *owners) set(old, now api.Object) {
	obj := now
	if obj == nil {
		obj = old
	}
	ns, name := obj.GetNamespace(), obj.GetName()
	if s, ok := obj.(*corev1.Service); ok {
		if now != nil && len(s.Spec.Selector) > 0 {
			if have, there := o.services[ns][name]; there && sameLabels(have, s.Spec.Selector) {
				return
			}
			if o.services[ns] == nil {
				o.services[ns] = map[string]labels.Set{}
			}
			o.services[ns][name] = s.Spec.Selector
		} else if _, there := o.services[ns][name]; !there {
			return
		} else if delete(o.services[ns], name); len(o.services[ns]) == 0 {
			delete(o.services, ns)
		}
		o.epochs[ns]++
		return
	}
	kind, sel := selects(obj)
	key := kind + "/" + ns + "/" + name
	have := o.selectors[key]
	switch {
	case now == nil || sel == nil:
		if have == nil {
			return
		}
		delete(o.selectors, key)
	case have != nil && have.String() == sel.String():
		return
	default:
		o.selectors[key] = sel
	}
	o.epochs[ns]++
}

// sameOwner: nothing about it changed but its status.
func sameOwner(old, now api.Object) bool {
	return old != nil && now != nil && old.GetUID() == now.GetUID() && now.GetGeneration() != 0 && old.GetGeneration() == now.GetGeneration()
}

// selects says which pods a controller selects; nil when that cannot be said.
func selects(obj api.Object) (kind string, sel labels.Selector) {
	var err error
	switch c := obj.(type) {
	case *appsv1.ReplicaSet:
		kind = "ReplicaSet"
		sel, err = metav1.LabelSelectorAsSelector(c.Spec.Selector)
	case *appsv1.StatefulSet:
		kind = "StatefulSet"
		sel, err = metav1.LabelSelectorAsSelector(c.Spec.Selector)
	case *corev1.ReplicationController:
		kind, sel = "ReplicationController", labels.SelectorFromSet(c.Spec.Selector)
	}
	if err != nil {
		return kind, nil
	}
	return kind, sel
}

// ownerKey of a pod's controller, "" when it is none whose selector counts.
func ownerKey(obj *corev1.Pod) string {
	o := metav1.GetControllerOfNoCopy(obj)
	if o == nil {
		return ""
	}
	switch {
	case o.Kind == "ReplicaSet" && o.APIVersion == "apps/v1", o.Kind == "StatefulSet" && o.APIVersion == "apps/v1",
		o.Kind == "ReplicationController" && o.APIVersion == "v1":
		return o.Kind + "/" + obj.Namespace + "/" + o.Name
	}
	return ""
}

// group selects the pods that belong together with one: they have what all
// Services that select it and its controller ask for. It is empty when nothing does.
func (o *owners) group(obj *corev1.Pod) labels.Selector {
	set := labels.Set{}
	for _, s := range o.services[obj.Namespace] {
		if s.AsSelectorPreValidated().Matches(labels.Set(obj.Labels)) {
			set = labels.Merge(set, s)
		}
	}
	sel := set.AsSelector()
	if own := o.selectors[ownerKey(obj)]; own != nil {
		if add, ok := own.Requirements(); ok {
			sel = sel.Add(add...)
		}
	}
	return sel
}

// regroup brings the constraints that a class has from its profile up to date with
// what Services and controllers select.
func (w *world) regroup(c *class) {
	now := w.owners.epochs[c.sample.Namespace] + 1
	if c.grouped == now || len(c.sample.Spec.TopologySpreadConstraints) > 0 || len(c.options.spread) == 0 {
		return
	}
	fresh := c.grouped == 0
	c.grouped = now
	sel := w.owners.group(c.sample)
	if id := sel.String(); !fresh && id == c.group {
		return
	} else {
		c.group = id
	}
	c.spread, c.spreadDefault = nil, false
	if !sel.Empty() {
		c.constraints(w.terms, c.options.spread, sel)
		c.spreadDefault = c.options.systemSpread
	}
	if c.board != nil {
		c.board.dims = nil
	}
}
