package verbs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/admission"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/store"
)

// pods is the resource that bindings and evictions are about.
var pods = schema.GroupResource{Resource: "pods"}

// Binding assigns a pod to a node. UID, where given, must be the pod's.
type Binding struct {
	Namespace, Name string
	UID             types.UID
	Node            string
	// In is the context of this binding, where it has one of its own.
	In context.Context //nolint:containedctx // lives as long as the call

	annotations, labels map[string]string // that admission has put on it
}

// BindAll assigns many pods in one transaction. The error at i says why the pod
// of binding i was not assigned: NotFound, Conflict, or what admission says. One pod
// that cannot be bound does not keep the others.
func (v *Verbs) BindAll(ctx context.Context, user *request.User, bindings []Binding) []error {
	errs := make([]error, len(bindings))
	k, ok := v.Catalog.Type(&corev1.Pod{})
	if !ok {
		for i := range errs {
			errs[i] = NoSuchPath()
		}
		return errs
	}
	v.admitAll(ctx, k, user, bindings, errs)
	todo := make([]int, 0, len(bindings))
	for i := range bindings {
		if errs[i] == nil {
			todo = append(todo, i)
		}
	}
	v.bindAll(ctx, k, bindings, todo, errs)
	return errs
}

// admitting is how many bindings are in admission at once: webhooks take their time.
const admitting = 16

// admitAll asks admission about each binding.
func (v *Verbs) admitAll(ctx context.Context, k *api.Kind, user *request.User, bindings []Binding, errs []error) {
	if !v.Admission.Used() {
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(admitting, len(bindings)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(bindings)); i = next.Add(1) - 1 {
				errs[i] = v.admitOne(ctx, k, user, &bindings[i])
			}
		})
	}
	wg.Wait()
}

func (v *Verbs) admitOne(ctx context.Context, k *api.Kind, user *request.User, b *Binding) error {
	if b.In != nil {
		ctx = b.In
	}
	body := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.Namespace, Name: b.Name, UID: b.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: b.Node},
	}
	err := v.admitBinding(ctx, &Request{Kind: api.Served{Kind: k}, Namespace: b.Namespace, Name: b.Name, Subresource: "binding", User: user}, body)
	b.Node, b.annotations, b.labels = body.Target.Name, body.Annotations, body.Labels
	return err
}

// admitBinding asks admission about a binding, and lets it change it.
func (v *Verbs) admitBinding(ctx context.Context, r *Request, b *corev1.Binding) error {
	w := &admission.Write{
		Operation: admission.Create, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name, Subresource: r.Subresource,
		Body: b, Options: orElse(r.Options, &metav1.CreateOptions{}), DryRun: r.DryRun, User: r.User,
	}
	if err := v.Admission.Admit(ctx, w); err != nil {
		return err
	}
	return v.Admission.Validate(ctx, w)
}

// bindAll assigns those pods of many that are to do.
func (v *Verbs) bindAll(ctx context.Context, k *api.Kind, bindings []Binding, todo []int, errs []error) {
	set := v.Cache.Of(k)
	for len(todo) > 0 {
		var changes []Change
		var whose []int
		for _, i := range todo {
			b := &bindings[i]
			old := set.Get(b.Namespace, b.Name)
			if old == nil {
				errs[i] = apierrors.NewNotFound(pods, b.Name)
				continue
			}
			pod, err := bound(old.Object.(*corev1.Pod), b.UID, "", b.Node, b.annotations, b.labels, v.Now())
			if err != nil {
				errs[i] = apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, b.Name, err)
				continue
			}
			changes, whose = append(changes, Change{Kind: k, Object: pod, Old: old}), append(whose, i)
		}
		if len(changes) == 0 {
			break
		}
		_, err := v.commit(ctx, changes...)
		if _, conflict := errors.AsType[*store.Conflict](err); conflict && ctx.Err() == nil {
			todo = whose // somebody changed one of them: look at all of them again
			continue
		}
		if errors.Is(err, store.ErrTooLarge) && len(whose) > 1 {
			half := len(whose) / 2 // it is too much for one transaction
			v.bindAll(ctx, k, bindings, whose[:half], errs)
			v.bindAll(ctx, k, bindings, whose[half:], errs)
			break
		}
		for _, i := range whose {
			errs[i] = refused(err)
		}
		break
	}
}

// bind is the action of pods/binding and of the old bindings resource.
func (v *Verbs) bind(ctx context.Context, r *Request, target api.Object, body runtime.Object) (runtime.Object, error) {
	b := body.(*corev1.Binding)
	if r.Name == "" { // POST …/bindings
		r.Name = b.Name
	}
	if b.Name != r.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	if err := checkBinding(b); err != nil {
		return nil, err
	}
	k, ok := v.Catalog.Type(&corev1.Pod{})
	if !ok {
		return nil, NoSuchPath()
	}
	on := *r
	on.Kind, on.Subresource = api.Served{Kind: k}, "binding"
	if err := v.admitBinding(ctx, &on, b); err != nil {
		return nil, err
	}
	set := v.Cache.Of(k)
	for {
		old := set.Get(r.Namespace, r.Name)
		if old == nil {
			return nil, apierrors.NewNotFound(pods, r.Name)
		}
		pod, err := bound(old.Object.(*corev1.Pod), b.UID, b.ResourceVersion, b.Target.Name, b.Annotations, b.Labels, v.Now())
		if err != nil {
			return nil, apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, r.Name, err)
		}
		if r.DryRun {
			return &metav1.Status{Status: metav1.StatusSuccess}, nil
		}
		_, err = v.commit(ctx, Change{Kind: k, Object: pod, Old: old})
		if _, again := errors.AsType[*store.Conflict](err); again && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, refused(err)
		}
		return &metav1.Status{Status: metav1.StatusSuccess}, nil
	}
}

func checkBinding(b *corev1.Binding) error {
	var all field.ErrorList
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		all = append(all, field.NotSupported(field.NewPath("target", "kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		all = append(all, field.Required(field.NewPath("target", "name"), ""))
	}
	if len(all) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "Binding"}, b.Name, all)
	}
	return nil
}

// bound is a copy of the pod that is assigned to a node, or why it cannot be.
func bound(pod *corev1.Pod, uid types.UID, version, node string, annotations, labels map[string]string, now time.Time) (*corev1.Pod, error) {
	switch {
	case uid != "" && uid != pod.UID:
		return nil, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, pod.UID)
	case version != "" && version != pod.ResourceVersion:
		return nil, fmt.Errorf("Precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", version, pod.ResourceVersion)
	case pod.DeletionTimestamp != nil:
		return nil, fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", pod.Name)
	case pod.Spec.NodeName != "":
		return nil, fmt.Errorf("pod %v is already assigned to node %q", pod.Name, pod.Spec.NodeName)
	case len(pod.Spec.SchedulingGates) > 0:
		return nil, fmt.Errorf("pod %v has non-empty .spec.schedulingGates", pod.Name)
	}
	pod = pod.DeepCopy()
	pod.Spec.NodeName = node
	pod.Status.NominatedNodeName = ""
	for k, v := range annotations {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[k] = v
	}
	for k, v := range labels {
		if pod.Labels == nil {
			pod.Labels = map[string]string{}
		}
		pod.Labels[k] = v
	}
	setCondition(pod, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, ObservedGeneration: pod.Generation}, now)
	return pod, nil
}

// setCondition of a pod; the time of its transition moves with its status.
func setCondition(pod *corev1.Pod, c corev1.PodCondition, now time.Time) {
	c.LastTransitionTime = metav1.NewTime(now.Truncate(1e9).UTC())
	for i := range pod.Status.Conditions {
		if had := &pod.Status.Conditions[i]; had.Type == c.Type {
			if had.Status == c.Status {
				c.LastTransitionTime = had.LastTransitionTime
			}
			*had = c
			return
		}
	}
	pod.Status.Conditions = append(pod.Status.Conditions, c)
}

// item of a pod, by name.
func (v *Verbs) pod(namespace, name string) (*api.Kind, *cache.Item, error) {
	k, ok := v.Catalog.Type(&corev1.Pod{})
	if !ok {
		return nil, nil, NoSuchPath()
	}
	if item := v.Cache.Of(k).Get(namespace, name); item != nil {
		return k, item, nil
	}
	return nil, nil, apierrors.NewNotFound(pods, name)
}
