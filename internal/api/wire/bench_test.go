package wire

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
)

// benchPod is a pod of about 3.6 kB, as a cluster has them.
func benchPod() *corev1.Pod {
	p := somePod("pod-with-a-usual-name-7d9c8b6f5-x2x4z")
	p.UID = "6a1b2c3d-0000-4000-8000-123456789abc"
	p.Labels = map[string]string{"app": "bench", "pod-template-hash": "7d9c8b6f5", "tier": "front"}
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "pod-with-a-usual-name-7d9c8b6f5", UID: "aaaa"}}
	for _, m := range []string{"kube-controller-manager", "kubelet"} {
		now := metav1.Now()
		p.ManagedFields = append(p.ManagedFields, metav1.ManagedFieldsEntry{Manager: m, Operation: "Update", APIVersion: "v1", Time: &now, FieldsType: "FieldsV1",
			FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:metadata":{"f:labels":{".":{},"f:app":{},"f:tier":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c0\"}":{".":{},"f:image":{},"f:name":{}}}}}`)}})
	}
	for i := range 2 {
		c := corev1.Container{Name: fmt.Sprint("c", i), Image: "registry.example.org/team/image:v1.2.3", TerminationMessagePath: "/dev/termination-log",
			TerminationMessagePolicy: "File", ImagePullPolicy: "IfNotPresent"}
		for j := range 4 {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("VARIABLE_", j), Value: "some value of it"})
		}
		c.Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("64Mi")}
		c.VolumeMounts = []corev1.VolumeMount{{Name: "kube-api-access-abcde", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}}
		c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 3, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/health"}}}
		p.Spec.Containers = append(p.Spec.Containers, c)
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, Ready: true, Image: c.Image, ContainerID: "containerd://0123456789abcdef"})
	}
	for _, t := range []corev1.PodConditionType{"PodScheduled", "Initialized", "ContainersReady", "Ready"} {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: t, Status: "True", LastTransitionTime: metav1.Now()})
	}
	return p
}

func BenchmarkBody(b *testing.B) {
	p := benchPod()
	for _, m := range []Media{JSON, Protobuf} {
		b.Run(m.ContentType(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				body, err := Body(p, m)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(body)))
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	p := benchPod()
	for _, m := range []Media{JSON, Protobuf} {
		doc, err := Encode(pods.GroupVersionKind, p, m)
		if err != nil {
			b.Fatal(err)
		}
		for name, s := range map[string]Strictness{"strict": Strict, "lenient": Ignore} {
			b.Run(m.ContentType()+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, _, err := Decode(m, doc, api.Served{Kind: pods}, s); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	b.Run("stored", func(b *testing.B) {
		stored, err := EncodeStorage(pods, p.DeepCopy())
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := DecodeStorage(pods, stored, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkGlue(b *testing.B) {
	body, err := Body(benchPod(), JSON)
	if err != nil {
		b.Fatal(err)
	}
	var dst []byte
	b.Run("event", func(b *testing.B) {
		for b.Loop() {
			dst = Event(dst[:0], "MODIFIED", pods.GroupVersionKind, Plain(body), JSON)
		}
	})
}

// BenchmarkCut is what it costs to keep a pod's JSON without its managed fields.
func BenchmarkCut(b *testing.B) {
	_, body, shared := managedPod()
	for _, m := range []Media{JSON, Protobuf} {
		text := body(m)
		b.Run(m.ContentType(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Cut(text, shared)
			}
		})
	}
}
