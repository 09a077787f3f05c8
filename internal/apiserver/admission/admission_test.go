package admission

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/extension/hook"
	"github.com/proa-dev/proa/internal/apiserver/managedfields"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/cache/cachetest"
)

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

// base is what every test's cluster has.
func base(more ...api.Object) []api.Object {
	return append([]api.Object{
		&corev1.Namespace{ObjectMeta: meta("", "ns"), Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}},
		&corev1.ServiceAccount{ObjectMeta: meta("ns", "default"), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}}},
	}, more...)
}

type world struct {
	*cachetest.World
	t        *testing.T
	chain    Chain
	warnings []string
}

func newWorld(t *testing.T, objects ...api.Object) *world {
	t.Helper()
	w := cachetest.New(t, objects...)
	of := func(o api.Object) cache.Reader {
		k, _ := w.Catalog.Type(o)
		return w.Of(k)
	}
	rbac := auth.NewRBAC(of(&rbacv1.Role{}), of(&rbacv1.RoleBinding{}), of(&rbacv1.ClusterRole{}), of(&rbacv1.ClusterRoleBinding{}))
	chain, err := Builtin(Config{
		Catalog: w.Catalog, Of: w.Reader, RBAC: rbac, Authorizer: rbac, Hooks: hook.New(w.Catalog, w.Reader),
		Merge: managedfields.New(w.Catalog, &openapi.Types{}, nil).Merge, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &world{World: w, t: t, chain: chain}
}

// write admits as the verbs do, and returns what came of it.
func (w *world) write(op Operation, obj, old api.Object, user *request.User) error {
	w.t.Helper()
	one := obj
	if one == nil {
		one = old
	}
	k, ok := w.Catalog.Type(one)
	if !ok {
		w.t.Fatalf("%T", one)
	}
	a := &Write{Operation: op, Kind: api.Served{Kind: k}, Namespace: one.GetNamespace(), Name: one.GetName(), Object: obj, Old: old, User: user}
	ctx := request.WithWarnings(context.Background(), func(s string) { w.warnings = append(w.warnings, s) })
	if err := w.chain.Admit(ctx, a); err != nil {
		return err
	}
	return w.chain.Validate(ctx, a)
}

func (w *world) create(obj api.Object) error {
	w.t.Helper()
	return w.write(Create, obj, nil, &request.User{Name: "ann"})
}

func (w *world) refused(err error, with func(error) bool, words string) {
	w.t.Helper()
	if err == nil || !with(err) || !strings.Contains(err.Error(), words) {
		w.t.Errorf("got %v, want %q", err, words)
	}
}

func aPod(f ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: meta("ns", "p"), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	for _, g := range f {
		g(p)
	}
	return p
}

func TestNamespaceLifecycle(t *testing.T) {
	now := metav1.Now()
	w := newWorld(t, base(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "going", DeletionTimestamp: &now}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}})...)
	if err := w.create(&corev1.ConfigMap{ObjectMeta: meta("ns", "c")}); err != nil {
		t.Error(err)
	}
	w.refused(w.create(&corev1.Pod{ObjectMeta: meta("nowhere", "p")}), apierrors.IsNotFound, `namespaces "nowhere" not found`)
	err := w.create(&corev1.ConfigMap{ObjectMeta: meta("going", "c")})
	w.refused(err, apierrors.IsForbidden, "unable to create new content in namespace going because it is being terminated")
	if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		t.Error("the cause is missing that controllers look for")
	}
	w.refused(w.write(Delete, nil, &corev1.Namespace{ObjectMeta: meta("", "default")}, nil), apierrors.IsForbidden, "this namespace may not be deleted")
}

func TestServiceAccount(t *testing.T) {
	w := newWorld(t, base(&corev1.ServiceAccount{ObjectMeta: meta("ns", "quiet"), AutomountServiceAccountToken: ptr.To(false)})...)
	p := aPod(func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "i"}}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "own", VolumeMounts: []corev1.VolumeMount{{Name: "x", MountPath: tokenMountPath}}})
	})
	if err := w.create(p); err != nil {
		t.Fatal(err)
	}
	if p.Spec.ServiceAccountName != "default" || len(p.Spec.Volumes) != 1 || len(p.Spec.ImagePullSecrets) != 1 ||
		len(p.Spec.InitContainers[0].VolumeMounts) != 1 || len(p.Spec.Containers[0].VolumeMounts) != 1 || p.Spec.Containers[1].VolumeMounts[0].Name != "x" {
		t.Errorf("got %+v", p.Spec)
	}
	quiet := aPod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "quiet" })
	if err := w.create(quiet); err != nil || len(quiet.Spec.Volumes) != 0 {
		t.Errorf("%v, %d volumes", err, len(quiet.Spec.Volumes))
	}
	w.refused(w.create(aPod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "no" })), apierrors.IsForbidden, `error looking up service account ns/no: serviceaccount "no" not found`)
}

func TestPriority(t *testing.T) {
	never := corev1.PreemptNever
	w := newWorld(t, base(
		&schedulingv1.PriorityClass{ObjectMeta: meta("", "high"), Value: 100, PreemptionPolicy: &never},
		&schedulingv1.PriorityClass{ObjectMeta: meta("", "usual"), Value: 5, GlobalDefault: true},
	)...)
	high := aPod(func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" })
	if err := w.create(high); err != nil || *high.Spec.Priority != 100 || *high.Spec.PreemptionPolicy != never {
		t.Errorf("%v, %+v", err, high.Spec)
	}
	usual := aPod()
	if err := w.create(usual); err != nil || *usual.Spec.Priority != 5 || usual.Spec.PriorityClassName != "usual" {
		t.Errorf("%v, %+v", err, usual.Spec)
	}
	w.refused(w.create(aPod(func(p *corev1.Pod) { p.Spec.PriorityClassName = "no" })), apierrors.IsForbidden, "no PriorityClass with name no was found")
	w.refused(w.create(aPod(func(p *corev1.Pod) { p.Spec.Priority = ptr.To[int32](7) })), apierrors.IsForbidden, "must not be provided in pod spec")
	w.refused(w.create(&schedulingv1.PriorityClass{ObjectMeta: meta("", "second"), GlobalDefault: true}), apierrors.IsForbidden, "PriorityClass usual is already marked as default")
}

func TestTolerationsAndTaints(t *testing.T) {
	w := newWorld(t, base()...)
	p := aPod(func(p *corev1.Pod) {
		p.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists}}
	})
	if err := w.create(p); err != nil || len(p.Spec.Tolerations) != 2 || p.Spec.Tolerations[1].Key != corev1.TaintNodeUnreachable || *p.Spec.Tolerations[1].TolerationSeconds != 300 {
		t.Errorf("%v, %+v", err, p.Spec.Tolerations)
	}
	n := &corev1.Node{ObjectMeta: meta("", "n")}
	if err := w.create(n); err != nil || len(n.Spec.Taints) != 1 || n.Spec.Taints[0].Key != corev1.TaintNodeNotReady {
		t.Errorf("%v, %+v", err, n.Spec.Taints)
	}
}

func TestDefaultIngressClass(t *testing.T) {
	w := newWorld(t, base(&networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "proa", Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}}})...)
	i := &networkingv1.Ingress{ObjectMeta: meta("ns", "i")}
	if err := w.create(i); err != nil || i.Spec.IngressClassName == nil || *i.Spec.IngressClassName != "proa" {
		t.Errorf("%v, %+v", err, i.Spec)
	}
	old := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "i", Annotations: map[string]string{"kubernetes.io/ingress.class": "x"}}}
	if err := w.create(old); err != nil || old.Spec.IngressClassName != nil {
		t.Errorf("%v, %+v", err, old.Spec)
	}
}

func TestNodeRestriction(t *testing.T) {
	theirs := aPod(func(p *corev1.Pod) { p.Name, p.Spec.NodeName = "theirs", "n2" })
	n1 := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"a": "b"}}}
	w := newWorld(t, base(theirs, n1)...)
	node := &request.User{Name: "system:node:n1", Groups: []string{request.Nodes}}
	w.refused(w.write(Create, aPod(), nil, node), apierrors.IsForbidden, "can only create mirror pods")
	w.refused(w.write(Delete, nil, theirs, node), apierrors.IsForbidden, `can only touch pods with spec.nodeName set to itself`)
	w.refused(w.write(Create, &corev1.Node{ObjectMeta: meta("", "n2")}, nil, node), apierrors.IsForbidden, `not allowed to modify node "n2"`)
	labelled := n1.DeepCopy()
	labelled.Labels["node-role.kubernetes.io/control-plane"] = ""
	w.refused(w.write(Update, labelled, n1, node), apierrors.IsForbidden, "is not allowed to modify labels: node-role.kubernetes.io/control-plane")
	tainted := n1.DeepCopy()
	tainted.Spec.Taints = []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoSchedule}}
	w.refused(w.write(Update, tainted, n1, node), apierrors.IsForbidden, "not allowed to modify taints")
	own := n1.DeepCopy()
	own.Labels["node.kubernetes.io/instance-type"] = "pi"
	if err := w.write(Update, own, n1, node); err != nil {
		t.Error(err)
	}
}

func TestLimitRanger(t *testing.T) {
	q := resource.MustParse
	w := newWorld(t, base(&corev1.LimitRange{ObjectMeta: meta("ns", "l"), Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
		Type: corev1.LimitTypeContainer, Default: corev1.ResourceList{"cpu": q("200m")}, DefaultRequest: corev1.ResourceList{"cpu": q("100m")},
		Min: corev1.ResourceList{"cpu": q("50m")}, Max: corev1.ResourceList{"cpu": q("1")},
	}}}})...)
	p := aPod()
	if err := w.create(p); err != nil {
		t.Fatal(err)
	}
	r := p.Spec.Containers[0].Resources
	if r.Requests.Cpu().String() != "100m" || r.Limits.Cpu().String() != "200m" || !strings.Contains(p.Annotations["kubernetes.io/limit-ranger"], "cpu request for container c") {
		t.Errorf("got %+v, %v", r, p.Annotations)
	}
	big := aPod(func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"cpu": q("2")}
	})
	w.refused(w.create(big), apierrors.IsForbidden, "maximum cpu usage per Container is 1, but limit is 2")
}

func TestPodSecurity(t *testing.T) {
	strict := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "strict", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"}}}
	w := newWorld(t, base(strict, &corev1.ServiceAccount{ObjectMeta: meta("strict", "default")})...)
	p := aPod(func(p *corev1.Pod) { p.Namespace, p.Spec.HostNetwork = "strict", true })
	w.refused(w.create(p), apierrors.IsForbidden, `violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)`)
	p = aPod(func(p *corev1.Pod) { p.Namespace = "strict" })
	if err := w.create(p); err != nil {
		t.Error(err)
	}
	if len(w.warnings) != 1 || !strings.HasPrefix(w.warnings[0], `would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false`) {
		t.Errorf("warnings: %q", w.warnings)
	}
}

func TestEscalation(t *testing.T) {
	w := newWorld(t, base(
		&rbacv1.ClusterRole{ObjectMeta: meta("", "big"), Rules: []rbacv1.PolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}}},
		&rbacv1.ClusterRole{ObjectMeta: meta("", "small"), Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}},
		&rbacv1.RoleBinding{ObjectMeta: meta("ns", "ann"), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "small"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}}},
	)...)
	bind := func(role string) api.Object {
		return &rbacv1.RoleBinding{ObjectMeta: meta("ns", "new"), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: role}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "bob"}}}
	}
	if err := w.create(bind("small")); err != nil {
		t.Error(err)
	}
	w.refused(w.create(bind("big")), apierrors.IsForbidden, `user "ann" (groups=[]) is attempting to grant RBAC permissions not currently held`)
	role := &rbacv1.Role{ObjectMeta: meta("ns", "r"), Rules: []rbacv1.PolicyRule{{Verbs: []string{"get", "delete"}, APIGroups: []string{""}, Resources: []string{"pods"}}}}
	w.refused(w.create(role), apierrors.IsForbidden, `{"verbs":["delete"],"apiGroups":[""],"resources":["pods"]}`)
	if err := w.write(Create, bind("big"), nil, &request.User{Name: "root", Groups: []string{request.Masters}}); err != nil {
		t.Error(err)
	}
}
