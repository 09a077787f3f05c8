package quota

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api"
)

func list(kv ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(kv); i += 2 {
		l[corev1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
	}
	return l
}

func kind(group, k, plural string) *api.Kind {
	return &api.Kind{GroupVersionKind: schema.GroupVersionKind{Group: group, Version: "v1", Kind: k}, Resource: plural}
}

func TestUsed(t *testing.T) {
	now := time.Unix(1000, 0)
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
			Requests: list("cpu", "500m", "memory", "1Gi", "example.com/gpu", "2"), Limits: list("cpu", "1", "example.com/gpu", "2"),
		}}}}}
		if change != nil {
			change(p)
		}
		return p
	}
	pods := []api.Object{
		pod(nil),
		pod(func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds, p.Spec.PriorityClassName = ptr.To[int64](5), "high" }),
		pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		pod(func(p *corev1.Pod) { p.Spec.Containers[0].Resources = corev1.ResourceRequirements{} }),
	}
	claims := []api.Object{&corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: ptr.To("gold"), Resources: corev1.VolumeResourceRequirements{Requests: list("storage", "5Gi")},
	}}}
	services := []api.Object{
		&corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: make([]corev1.ServicePort, 2)}},
		&corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: make([]corev1.ServicePort, 1), AllocateLoadBalancerNodePorts: ptr.To(false)}},
	}
	podKind, claimKind, serviceKind := kind("", "Pod", "pods"), kind("", "PersistentVolumeClaim", "persistentvolumeclaims"), kind("", "Service", "services")
	scoped := func(names ...corev1.ResourceQuotaScope) corev1.ResourceQuotaSpec {
		return corev1.ResourceQuotaSpec{Scopes: names}
	}
	for _, c := range []struct {
		name string
		kind *api.Kind
		objs []api.Object
		spec corev1.ResourceQuotaSpec
		want corev1.ResourceList
	}{
		{"pods", podKind, pods, corev1.ResourceQuotaSpec{}, list("pods", "3", "count/pods", "4", "cpu", "1", "requests.cpu", "1", "limits.cpu", "2", "requests.memory", "2Gi", "requests.example.com/gpu", "4")},
		{"terminating", podKind, pods, scoped(corev1.ResourceQuotaScopeTerminating), list("pods", "1", "requests.cpu", "500m")},
		{"not terminating", podKind, pods, scoped(corev1.ResourceQuotaScopeNotTerminating), list("pods", "2")},
		{"best effort", podKind, pods, scoped(corev1.ResourceQuotaScopeBestEffort), list("pods", "1")},
		{"not best effort", podKind, pods, scoped(corev1.ResourceQuotaScopeNotBestEffort), list("pods", "2")},
		{"by priority", podKind, pods, corev1.ResourceQuotaSpec{ScopeSelector: &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
			{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{"high"}},
		}}}, list("pods", "1")},
		{"claims", claimKind, claims, corev1.ResourceQuotaSpec{}, list("persistentvolumeclaims", "1", "requests.storage", "5Gi",
			"gold.storageclass.storage.k8s.io/requests.storage", "5Gi", "gold.storageclass.storage.k8s.io/persistentvolumeclaims", "1", "iron.storageclass.storage.k8s.io/persistentvolumeclaims", "0")},
		{"services", serviceKind, services, corev1.ResourceQuotaSpec{}, list("services", "2", "services.nodeports", "2", "services.loadbalancers", "1")},
		{"others by count", kind("apps", "Deployment", "deployments"), []api.Object{&corev1.ConfigMap{}}, corev1.ResourceQuotaSpec{}, list("count/deployments.apps", "1")},
		{"an older name", kind("", "ConfigMap", "configmaps"), []api.Object{&corev1.ConfigMap{}}, corev1.ResourceQuotaSpec{}, list("configmaps", "1", "count/configmaps", "1")},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := &corev1.ResourceQuota{Spec: c.spec}
			q.Spec.Hard = c.want.DeepCopy()
			got := Used(q, c.kind, c.objs, nil, now)
			if len(got) != len(c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
			for name, w := range c.want {
				if g := got[name]; g.Cmp(w) != 0 {
					t.Errorf("%s is %s, want %s", name, g.String(), w.String())
				}
			}
		})
	}
}

func TestMissing(t *testing.T) {
	q := &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Hard: list("limits.cpu", "1", "requests.memory", "1Gi", "pods", "3")}}
	p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{
		{Name: "b"}, {Name: "a", Resources: corev1.ResourceRequirements{Requests: list("memory", "1Mi")}},
	}}}
	if got := Missing(q, p); got != "must specify limits.cpu for: a,b; requests.memory for: b" {
		t.Error(got)
	}
}

func TestExceeds(t *testing.T) {
	got := Exceeds(list("pods", "1", "cpu", "2"), list("pods", "2", "cpu", "1"), list("pods", "3", "cpu", "2"))
	if len(got) != 1 || got[0] != "cpu" {
		t.Error(got)
	}
}
