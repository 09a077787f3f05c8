package resourceclaim

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// pod "p" with one claim from the template "t" and one by its name, "shared".
func pod(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "p"}}
	p.Spec.ResourceClaims = []corev1.PodResourceClaim{
		{Name: "gpu", ResourceClaimTemplateName: ptr.To("t")}, {Name: "net", ResourceClaimName: ptr.To("shared")},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func said(claim string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "gpu", ResourceClaimName: &claim}}
	}
}

func needsNone(p *corev1.Pod) {
	p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "gpu"}}
}

func placed(p *corev1.Pod)   { p.Spec.NodeName = "n" }
func done(p *corev1.Pod)     { p.Status.Phase = corev1.PodSucceeded }
func deleting(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.Now()) }

func claim(name string, change ...func(*resourcev1.ResourceClaim)) *resourcev1.ResourceClaim {
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "c"}}
	for _, f := range change {
		f(c)
	}
	return c
}

func made(c *resourcev1.ResourceClaim) {
	c.Annotations = map[string]string{resourcev1.PodResourceClaimAnnotation: "gpu"}
	c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "p", Controller: ptr.To(true)}}
}

// special: made by the scheduler, for a pod's extended resources.
func special(c *resourcev1.ResourceClaim) {
	made(c)
	c.Annotations = map[string]string{resourcev1.ExtendedResourceClaimAnnotation: "true"}
}

// has a pod the claim of that name for its extended resources.
func has(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: name}
	}
}

func allocated(c *resourcev1.ResourceClaim) {
	c.Finalizers = []string{resourcev1.Finalizer}
	c.Status.Allocation = &resourcev1.AllocationResult{}
}

func going(c *resourcev1.ResourceClaim) { c.DeletionTimestamp = ptr.To(metav1.Now()) }

func reserved(uids ...string) func(*resourcev1.ResourceClaim) {
	return func(c *resourcev1.ResourceClaim) {
		for _, uid := range uids {
			c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: uid, UID: types.UID(uid)})
		}
	}
}

func TestDecidePod(t *testing.T) {
	for what, c := range map[string]struct {
		pod    *corev1.Pod
		owned  []*resourcev1.ResourceClaim
		name   string // of the generated claim
		write  bool
		create bool
	}{
		"nothing there":                           {pod: pod(), create: true},
		"made, not yet said":                      {pod: pod(), owned: []*resourcev1.ResourceClaim{claim("a", made)}, name: "a", write: true},
		"made and said":                           {pod: pod(said("a")), owned: []*resourcev1.ResourceClaim{claim("a", made)}, name: "a"},
		"said, but gone":                          {pod: pod(said("a")), create: true},
		"said, gone, and another is there":        {pod: pod(said("a")), owned: []*resourcev1.ResourceClaim{claim("b", made)}, name: "b", write: true},
		"two of them, by accident":                {pod: pod(), owned: []*resourcev1.ResourceClaim{claim("b", made), claim("a", made)}, name: "a", write: true},
		"one that is on its way out":              {pod: pod(), owned: []*resourcev1.ResourceClaim{claim("a", made, going)}, create: true},
		"one that is for something else":          {pod: pod(), owned: []*resourcev1.ResourceClaim{claim("a", made, func(c *resourcev1.ResourceClaim) { c.Annotations = nil })}, create: true},
		"said that it needs none":                 {pod: pod(needsNone)},
		"said, on its way out: it is used so far": {pod: pod(said("a")), owned: []*resourcev1.ResourceClaim{claim("a", made, going)}, name: "a"},
	} {
		plan := decidePod(c.pod, c.owned)
		if plan.names["gpu"] != c.name || plan.write != c.write || (len(plan.create) == 1) != c.create || len(plan.names) > 1 {
			t.Errorf("%s: got %+v", what, plan)
		}
	}
}

func TestNeedsWork(t *testing.T) {
	all := map[string]*resourcev1.ResourceClaim{
		"mine": claim("mine", made), "other": claim("other"), "shared": claim("shared"),
	}
	busy := map[string]*resourcev1.ResourceClaim{"mine": claim("mine", made), "shared": claim("shared", allocated)}
	for what, c := range map[string]struct {
		pod    *corev1.Pod
		claims map[string]*resourcev1.ResourceClaim
		want   bool
	}{
		"a claim is to be made":                {pod(), all, true},
		"all is there":                         {pod(said("mine")), all, false},
		"the claim is gone":                    {pod(said("lost")), all, true},
		"the claim is another's":               {pod(said("other")), all, true},
		"the named claim is not its business":  {pod(said("mine")), map[string]*resourcev1.ResourceClaim{"mine": all["mine"]}, false},
		"it needs none":                        {pod(needsNone), all, false},
		"it has a node and no reservation":     {pod(said("mine"), placed), busy, true},
		"it has no node: the scheduler's work": {pod(said("mine")), busy, false},
		"it is over":                           {pod(done), all, false},
		"it is deleted":                        {pod(deleting, placed), all, false},
	} {
		if got := needsWork(c.pod, func(name string) *resourcev1.ResourceClaim { return c.claims[name] }); got != c.want {
			t.Errorf("%s: got %v", what, got)
		}
	}
}

func TestDecideClaim(t *testing.T) {
	type plan struct {
		left                                 int
		write, deallocate, unprotect, remove bool
	}
	for what, c := range map[string]struct {
		claim *resourcev1.ResourceClaim
		uses  string // who of its consumers does
		owner *corev1.Pod
		want  plan
	}{
		"all use it":                    {claim("c", allocated, reserved("a", "b")), "ab", nil, plan{left: 2}},
		"one of two is over":            {claim("c", allocated, reserved("a", "b")), "a", nil, plan{left: 1, write: true}},
		"the last is over":              {claim("c", allocated, reserved("a")), "", nil, plan{write: true, deallocate: true, unprotect: true}},
		"allocated, nobody used it yet": {claim("c", allocated), "", nil, plan{}},
		"the same, deleted":             {claim("c", allocated, going), "", nil, plan{write: true, deallocate: true, unprotect: true}},
		"deleted while it is used":      {claim("c", allocated, going, reserved("a")), "a", nil, plan{left: 1}},
		"deleted, only the finalizer":   {claim("c", going, func(c *resourcev1.ResourceClaim) { c.Finalizers = []string{resourcev1.Finalizer} }), "", nil, plan{unprotect: true}},
		"another's finalizer":           {claim("c", going, func(c *resourcev1.ResourceClaim) { c.Finalizers = []string{"x/y"} }), "", nil, plan{}},
		"allocated by somebody else":    {claim("c", reserved("a"), func(c *resourcev1.ResourceClaim) { c.Status.Allocation = &resourcev1.AllocationResult{} }), "", nil, plan{write: true}},
		"an unknown consumer stays": {claim("c", allocated, func(c *resourcev1.ResourceClaim) {
			c.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{APIGroup: "x", Resource: "y", Name: "z", UID: "z"}}
		}), "", nil, plan{left: 1}},
		"made for a pod that is over":     {claim("c", made, allocated, reserved("p")), "", pod(done), plan{write: true, deallocate: true, unprotect: true, remove: true}},
		"made for a pod that may run":     {claim("c", made), "", pod(), plan{}},
		"made for one that was replaced":  {claim("c", made), "", pod(func(p *corev1.Pod) { p.UID = "q" }), plan{remove: true}},
		"made for one not known":          {claim("c", made), "", nil, plan{}},
		"made for one that never ran":     {claim("c", made), "", pod(deleting), plan{remove: true}},
		"made for one that is stopped":    {claim("c", made, allocated, reserved("p")), "p", pod(deleting, placed), plan{left: 1}},
		"special, and the pod has it":     {claim("c", special, allocated, reserved("p")), "p", pod(placed, has("c")), plan{left: 1}},
		"special, the pod has another":    {claim("c", special, allocated, reserved("p")), "p", pod(placed, has("d")), plan{write: true, deallocate: true, unprotect: true, remove: true}},
		"special, the pod has no node":    {claim("c", special, allocated, reserved("p")), "p", pod(has("d")), plan{left: 1}},
		"made for one, and deleted twice": {claim("c", made, going), "", pod(done), plan{}},
	} {
		got := decideClaim(c.claim, func(r resourcev1.ResourceClaimConsumerReference) bool { return strings.Contains(c.uses, r.Name) }, c.owner)
		if (plan{len(got.reserved), got.write, got.deallocate, got.unprotect, got.remove}) != c.want {
			t.Errorf("%s: got %+v, want %+v", what, got, c.want)
		}
	}
}

func TestFromTemplate(t *testing.T) {
	tpl := &resourcev1.ResourceClaimTemplate{Spec: resourcev1.ResourceClaimTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"l": "1"}, Annotations: map[string]string{"a": "1"}},
		Spec:       resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r"}}}},
	}}
	got := fromTemplate(pod(), "gpu", tpl)
	if got.GenerateName != "p-gpu-" || got.Namespace != "ns" || got.Labels["l"] != "1" || got.Annotations["a"] != "1" ||
		got.Annotations[resourcev1.PodResourceClaimAnnotation] != "gpu" || !metav1.IsControlledBy(got, pod()) || got.Spec.Devices.Requests[0].Name != "r" {
		t.Errorf("got %+v", got)
	}
	if len(tpl.Spec.Annotations) != 1 {
		t.Error("the template was changed")
	}
	if base := baseName(strings.Repeat("p", 200), strings.Repeat("c", 20)); len(base) > mostBase || !strings.Contains(base, "p-c") {
		t.Errorf("got %q (%d)", base, len(base))
	}
}

func TestUses(t *testing.T) {
	u := newUses()
	u.set("ns/p", []string{"c/ns/a", "t/ns/t"})
	u.set("ns/q", []string{"c/ns/a"})
	if got := u.of("c/ns/a"); len(got) != 2 || !slices.Contains(got, "ns/p") {
		t.Errorf("got %q", got)
	}
	u.set("ns/p", []string{"c/ns/b"})
	u.set("ns/q", nil)
	if len(u.of("c/ns/a")) != 0 || len(u.of("t/ns/t")) != 0 || len(u.of("c/ns/b")) != 1 || len(u.pods) != 1 || len(u.keys) != 1 {
		t.Errorf("got %+v", u)
	}
}
