package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/cache"
)

// Priority resolves a pod's priority class to a number, and keeps a second
// class from becoming the default.
type Priority struct {
	Classes cache.Typed[*schedulingv1.PriorityClass]
}

// Name implements Plugin.
func (*Priority) Name() string { return "Priority" }

// Admit implements Mutator.
func (p *Priority) Admit(_ context.Context, w *Write) error {
	pod, ok := w.Object.(*corev1.Pod)
	if !ok || w.Operation != Create || w.Subresource != "" {
		return nil
	}
	class, err := p.classOf(w, pod)
	if err != nil {
		return err
	}
	value, policy := int32(0), corev1.PreemptLowerPriority
	if class != nil {
		pod.Spec.PriorityClassName = class.Name
		value = class.Value
		if class.PreemptionPolicy != nil {
			policy = *class.PreemptionPolicy
		}
	}
	// what the user wrote must be what was resolved
	if pod.Spec.Priority != nil && *pod.Spec.Priority != value {
		return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name,
			fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *pod.Spec.Priority, value))
	}
	if pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy != policy {
		return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name,
			fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *pod.Spec.PreemptionPolicy, policy))
	}
	pod.Spec.Priority, pod.Spec.PreemptionPolicy = &value, &policy
	return nil
}

func (p *Priority) classOf(w *Write, pod *corev1.Pod) (*schedulingv1.PriorityClass, error) {
	if name := pod.Spec.PriorityClassName; name != "" {
		class, ok := p.Classes.Get("", name)
		if !ok {
			return nil, apierrors.NewForbidden(w.Kind.GroupResource(), w.Name, fmt.Errorf("no PriorityClass with name %v was found", name))
		}
		return class, nil
	}
	var found *schedulingv1.PriorityClass
	p.Classes.Each("", func(c *schedulingv1.PriorityClass) bool {
		if c.GlobalDefault && (found == nil || c.Value < found.Value) {
			found = c
		}
		return true
	})
	return found, nil
}

// Validate implements Validator.
func (p *Priority) Validate(_ context.Context, w *Write) error {
	class, ok := w.Object.(*schedulingv1.PriorityClass)
	if !ok || !class.GlobalDefault || (w.Operation != Create && w.Operation != Update) {
		return nil
	}
	var err error
	p.Classes.Each("", func(c *schedulingv1.PriorityClass) bool {
		if c.GlobalDefault && c.Name != class.Name {
			err = apierrors.NewForbidden(w.Kind.GroupResource(), w.Name,
				fmt.Errorf("PriorityClass %v is already marked as default. Only one default can exist", c.Name))
		}
		return err == nil
	})
	return err
}
