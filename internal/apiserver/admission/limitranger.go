package admission

import (
	"context"
	"fmt"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/proa-dev/proa/internal/cache"
)

// LimitRanger gives containers the requests and limits that their namespace's
// LimitRanges set by default, and refuses what is outside of these ranges.
type LimitRanger struct {
	Ranges cache.Typed[*corev1.LimitRange]
}

// Name implements Plugin.
func (*LimitRanger) Name() string { return "LimitRanger" }

// Admit implements Mutator.
func (p *LimitRanger) Admit(_ context.Context, w *Write) error {
	pod, ok := w.Object.(*corev1.Pod)
	if !ok || w.Operation != Create || w.Subresource != "" {
		return nil
	}
	p.Ranges.Each(w.Namespace, func(r *corev1.LimitRange) bool {
		for _, item := range r.Spec.Limits {
			if item.Type == corev1.LimitTypeContainer && pod.Spec.Resources == nil {
				applyDefaults(pod, r.Name, item)
			}
		}
		return true
	})
	return nil
}

func applyDefaults(pod *corev1.Pod, name string, item corev1.LimitRangeItem) {
	var notes []string
	each := func(what string, list []corev1.Container) {
		for i := range list {
			c := &list[i]
			req := fill(&c.Resources.Requests, item.DefaultRequest)
			lim := fill(&c.Resources.Limits, item.Default)
			if len(req) > 0 {
				notes = append(notes, fmt.Sprintf("%s request for %s %s", strings.Join(req, ", "), what, c.Name))
			}
			if len(lim) > 0 {
				notes = append(notes, fmt.Sprintf("%s limit for %s %s", strings.Join(lim, ", "), what, c.Name))
			}
		}
	}
	each("container", pod.Spec.Containers)
	each("init container", pod.Spec.InitContainers)
	if len(notes) > 0 {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations["kubernetes.io/limit-ranger"] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
	}
}

// fill sets what is not set and returns the names of what it has set.
func fill(have *corev1.ResourceList, with corev1.ResourceList) []string {
	var set []string
	for name, q := range with {
		if _, ok := (*have)[name]; ok {
			continue
		}
		if *have == nil {
			*have = corev1.ResourceList{}
		}
		(*have)[name] = q.DeepCopy()
		set = append(set, string(name))
	}
	sort.Strings(set)
	return set
}

// Validate implements Validator.
func (p *LimitRanger) Validate(_ context.Context, w *Write) error {
	if w.Object == nil || w.Operation != Create && w.Operation != Update || w.Subresource != "" && w.Subresource != "resize" {
		return nil
	}
	var faults []string
	look := func(o any) {
		p.Ranges.Each(w.Namespace, func(r *corev1.LimitRange) bool {
			for _, item := range r.Spec.Limits {
				switch o := o.(type) {
				case *corev1.Pod:
					faults = append(faults, podFaults(o, item)...)
				case *corev1.PersistentVolumeClaim:
					if item.Type == corev1.LimitTypePersistentVolumeClaim {
						faults = append(faults, outside(item, o.Spec.Resources.Requests, o.Spec.Resources.Requests)...)
					}
				}
			}
			return true
		})
	}
	switch o := w.Object.(type) {
	case *corev1.Pod:
		if w.Operation == Update && w.Subresource == "" {
			return nil // requests and limits change only by resize
		}
		look(o)
	case *corev1.PersistentVolumeClaim:
		look(o)
	}
	switch len(faults) {
	case 0:
		return nil
	case 1:
		return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name, fmt.Errorf("%s", faults[0]))
	}
	return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name, fmt.Errorf("[%s]", strings.Join(faults, ", ")))
}

func podFaults(pod *corev1.Pod, item corev1.LimitRangeItem) []string {
	var faults []string
	switch item.Type {
	case corev1.LimitTypeContainer:
		for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
			for i := range list {
				faults = append(faults, outside(item, list[i].Resources.Requests, list[i].Resources.Limits)...)
			}
		}
	case corev1.LimitTypePod:
		req, lim := podSums(pod)
		faults = outside(item, req, lim)
	}
	return faults
}

// podSums adds up what containers ask for; init containers run one after the
// other, so the largest of them counts; sidecars add to the rest.
func podSums(pod *corev1.Pod) (requests, limits corev1.ResourceList) {
	sum := func(of func(*corev1.Container) corev1.ResourceList) corev1.ResourceList {
		total := corev1.ResourceList{}
		add := func(l corev1.ResourceList) {
			for n, q := range l {
				t := total[n]
				t.Add(q)
				total[n] = t
			}
		}
		for i := range pod.Spec.Containers {
			add(of(&pod.Spec.Containers[i]))
		}
		for i := range pod.Spec.InitContainers {
			c := &pod.Spec.InitContainers[i]
			if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
				add(of(c))
				continue
			}
			for n, q := range of(c) {
				if t, ok := total[n]; !ok || q.Cmp(t) > 0 {
					total[n] = q.DeepCopy()
				}
			}
		}
		return total
	}
	requests = sum(func(c *corev1.Container) corev1.ResourceList { return c.Resources.Requests })
	limits = sum(func(c *corev1.Container) corev1.ResourceList { return c.Resources.Limits })
	if r := pod.Spec.Resources; r != nil {
		for n, q := range r.Requests {
			requests[n] = q
		}
		for n, q := range r.Limits {
			limits[n] = q
		}
	}
	return requests, limits
}

// outside lists how requests and limits leave a range, in upstream's words.
func outside(item corev1.LimitRangeItem, req, lim corev1.ResourceList) []string {
	var faults []string
	say := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	for _, n := range sorted(item.Min) {
		min := item.Min[n]
		r, hasReq := req[n]
		l, hasLim := lim[n]
		switch {
		case !hasReq:
			say("minimum %s usage per %s is %s.  No request is specified", n, item.Type, min.String())
		case r.Cmp(min) < 0:
			say("minimum %s usage per %s is %s, but request is %s", n, item.Type, min.String(), r.String())
		case hasLim && l.Cmp(min) < 0:
			say("minimum %s usage per %s is %s, but limit is %s", n, item.Type, min.String(), l.String())
		}
	}
	for _, n := range sorted(item.Max) {
		max := item.Max[n]
		r, hasReq := req[n]
		l, hasLim := lim[n]
		switch {
		case !hasLim:
			say("maximum %s usage per %s is %s.  No limit is specified", n, item.Type, max.String())
		case l.Cmp(max) > 0:
			say("maximum %s usage per %s is %s, but limit is %s", n, item.Type, max.String(), l.String())
		case hasReq && r.Cmp(max) > 0:
			say("maximum %s usage per %s is %s, but request is %s", n, item.Type, max.String(), r.String())
		}
	}
	for _, n := range sorted(item.MaxLimitRequestRatio) {
		ratio := item.MaxLimitRequestRatio[n]
		r, hasReq := req[n]
		l, hasLim := lim[n]
		switch {
		case !hasReq || r.IsZero():
			say("%s max limit to request ratio per %s is %s, but no request is specified or request is 0", n, item.Type, ratio.String())
		case !hasLim || l.IsZero():
			say("%s max limit to request ratio per %s is %s, but no limit is specified or limit is 0", n, item.Type, ratio.String())
		case ratioOf(l, r) > float64(ratio.MilliValue())/1000:
			say("%s max limit to request ratio per %s is %s, but provided ratio is %f", n, item.Type, ratio.String(), ratioOf(l, r))
		}
	}
	return faults
}

func ratioOf(l, r resource.Quantity) float64 {
	return float64(l.MilliValue()) / float64(r.MilliValue())
}

func sorted(l corev1.ResourceList) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(l))
	for n := range l {
		names = append(names, n)
	}
	sort.Slice(names, func(i, j int) bool { return names[i] < names[j] })
	return names
}
