package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/cache"
)

// DefaultTolerationSeconds lets a pod stay five minutes on a node that is not
// ready or cannot be reached, unless it says something else.
type DefaultTolerationSeconds struct{}

// Name implements Plugin.
func (DefaultTolerationSeconds) Name() string { return "DefaultTolerationSeconds" }

// Admit implements Mutator.
func (DefaultTolerationSeconds) Admit(_ context.Context, w *Write) error {
	pod, ok := w.Object.(*corev1.Pod)
	if !ok || w.Subresource != "" || w.Operation != Create && w.Operation != Update {
		return nil
	}
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		if !tolerates(pod, key) {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
				Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](300),
			})
		}
	}
	return nil
}

func tolerates(pod *corev1.Pod, key string) bool {
	for _, t := range pod.Spec.Tolerations {
		if (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
			return true
		}
	}
	return false
}

// RuntimeClass adds a pod's runtime class's overhead, node selector and
// tolerations.
type RuntimeClass struct {
	Classes cache.Typed[*nodev1.RuntimeClass]
}

// Name implements Plugin.
func (*RuntimeClass) Name() string { return "RuntimeClass" }

func (p *RuntimeClass) of(w *Write) (*corev1.Pod, *nodev1.RuntimeClass, error) {
	pod, ok := w.Object.(*corev1.Pod)
	if !ok || w.Operation != Create || w.Subresource != "" || pod.Spec.RuntimeClassName == nil {
		return nil, nil, nil
	}
	class, ok := p.Classes.Get("", *pod.Spec.RuntimeClassName)
	if !ok {
		return nil, nil, apierrors.NewForbidden(w.Kind.GroupResource(), w.Name,
			fmt.Errorf("pod rejected: RuntimeClass %q not found", *pod.Spec.RuntimeClassName))
	}
	return pod, class, nil
}

// Admit implements Mutator.
func (p *RuntimeClass) Admit(_ context.Context, w *Write) error {
	pod, class, err := p.of(w)
	if class == nil {
		return err
	}
	if class.Overhead != nil {
		if len(pod.Spec.Overhead) > 0 && !equality.Semantic.DeepEqual(pod.Spec.Overhead, class.Overhead.PodFixed) {
			return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name,
				fmt.Errorf("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
		}
		pod.Spec.Overhead = class.Overhead.PodFixed.DeepCopy()
	}
	if class.Scheduling == nil {
		return nil
	}
	for k, v := range class.Scheduling.NodeSelector {
		if have, ok := pod.Spec.NodeSelector[k]; ok && have != v {
			return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name, fmt.Errorf("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", k, v, k, have))
		}
		if pod.Spec.NodeSelector == nil {
			pod.Spec.NodeSelector = map[string]string{}
		}
		pod.Spec.NodeSelector[k] = v
	}
	for _, t := range class.Scheduling.Tolerations {
		if !hasToleration(pod.Spec.Tolerations, t) {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, t)
		}
	}
	return nil
}

// Validate implements Validator: an overhead may come only from a runtime class.
func (p *RuntimeClass) Validate(_ context.Context, w *Write) error {
	pod, ok := w.Object.(*corev1.Pod)
	if !ok || w.Operation != Create || w.Subresource != "" || len(pod.Spec.Overhead) == 0 {
		return nil
	}
	_, class, err := p.of(w)
	if err != nil {
		return err
	}
	if class == nil || class.Overhead == nil {
		return apierrors.NewForbidden(w.Kind.GroupResource(), w.Name,
			fmt.Errorf("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
	}
	return nil
}

func hasToleration(list []corev1.Toleration, t corev1.Toleration) bool {
	for i := range list {
		if equality.Semantic.DeepEqual(list[i], t) {
			return true
		}
	}
	return false
}
