package managedfields

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/openapi"
)

// ordinaryPod is one as a ReplicaSet makes it, with defaults.
func ordinaryPod() *corev1.Pod {
	yes, grace, mode, seconds := true, int64(30), int32(420), int64(300)
	probe := func() *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/health", Port: intstr.FromInt32(8000), Scheme: "HTTP"}},
			TimeoutSeconds: 1, PeriodSeconds: 3, SuccessThreshold: 1, FailureThreshold: 3}
	}
	container := func(name string) corev1.Container {
		return corev1.Container{Name: name, Image: "registry.example.com/" + name + ":v1", ImagePullPolicy: "IfNotPresent",
			Command: []string{"/bin/server"}, Args: []string{"--port", "8000"},
			Env:   []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}, {Name: "NODE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "spec.nodeName"}}}},
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8000, Protocol: "TCP"}},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("128Mi")},
				Limits:   corev1.ResourceList{"memory": resource.MustParse("256Mi")}},
			LivenessProbe: probe(), ReadinessProbe: probe(),
			VolumeMounts:           []corev1.VolumeMount{{Name: "token", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}, {Name: "data", MountPath: "/data"}},
			TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: "File"}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-6d4cf56db6-abcde", GenerateName: "web-6d4cf56db6-", Namespace: "default",
			Labels:          map[string]string{"app": "web", "pod-template-hash": "6d4cf56db6", "tier": "front"},
			Annotations:     map[string]string{"example.com/a": "1"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-6d4cf56db6", UID: "5f1c", Controller: &yes, BlockOwnerDeletion: &yes}}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{container("app"), container("sidecar")}, RestartPolicy: "Always", TerminationGracePeriodSeconds: &grace,
			DNSPolicy: "ClusterFirst", ServiceAccountName: "default", DeprecatedServiceAccount: "default", SecurityContext: &corev1.PodSecurityContext{},
			SchedulerName: "default-scheduler", EnableServiceLinks: &yes,
			Tolerations: []corev1.Toleration{{Key: "node.kubernetes.io/not-ready", Operator: "Exists", Effect: "NoExecute", TolerationSeconds: &seconds}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: &mode}}}},
		},
		Status: corev1.PodStatus{Phase: "Pending", QOSClass: "Burstable"},
	}
}

// running is the pod with the status a kubelet writes.
func running(pod *corev1.Pod, ready corev1.ConditionStatus, at int64) *corev1.Pod {
	pod = pod.DeepCopy()
	now := metav1.Unix(at, 0)
	started := true
	pod.Status = corev1.PodStatus{Phase: "Running", QOSClass: "Burstable", HostIP: "10.0.0.1", HostIPs: []corev1.HostIP{{IP: "10.0.0.1"}},
		PodIP: "10.244.0.7", PodIPs: []corev1.PodIP{{IP: "10.244.0.7"}}, StartTime: &now}
	for _, c := range []corev1.PodConditionType{"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: c, Status: ready, LastTransitionTime: now})
	}
	for _, c := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: "sha256:1", ContainerID: "containerd://1",
			Ready: ready == "True", Started: &started, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}})
	}
	return pod
}

func BenchmarkPod(b *testing.B) {
	types := &openapi.Types{}
	catalog, _ := everyKind(b)
	served, _ := catalog.Kind(schema.GroupVersionKind{Version: "v1", Kind: "Pod"})
	k := served.Kind
	ours := New(catalog, types, nil)
	kind := api.Served{Kind: k}
	fm, fmStatus := upstream(b, types, k, ""), upstream(b, types, k, "status")
	now := time.Now()

	created := ordinaryPod()
	if err := ours.Update(kind, nil, created, "kube-controller-manager", "", now); err != nil {
		b.Fatal(err)
	}
	created.UID = "1"
	first := running(created, "False", 1)
	if err := ours.Update(kind, created, first, "kubelet", "status", now); err != nil {
		b.Fatal(err)
	}
	second := running(first, "True", 2)
	labelled := second.DeepCopy()
	labelled.Labels["new"] = "x"
	patch := []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-6d4cf56db6-abcde","labels":{"a":"b"}},"spec":{"containers":[{"name":"app","image":"new"}]}}`)

	cases := []struct {
		name, sub string
		live, obj *corev1.Pod
	}{
		{"create", "", nil, ordinaryPod()},
		{"status", "status", first, second},
		{"label", "", second, labelled},
		{"noop", "", second, second},
	}
	for _, c := range cases {
		b.Run(c.name+"/ours", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				obj := *c.obj
				var live api.Object
				if c.live != nil {
					live = c.live
				}
				if err := ours.Update(kind, live, &obj, "m", c.sub, now); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"/library", func(b *testing.B) {
			b.ReportAllocs()
			use := fm
			if c.sub != "" {
				use = fmStatus
			}
			for b.Loop() {
				obj, live := *c.obj, corev1.Pod{}
				if c.live != nil {
					live = *c.live
				}
				obj.SetGroupVersionKind(k.GroupVersionKind)
				live.SetGroupVersionKind(k.GroupVersionKind)
				if _, err := use.Update(&live, &obj, "m"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("apply/ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ours.Apply(kind, second, patch, "m", "", true, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("apply/library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			config, err := decodeConfig(patch)
			if err != nil {
				b.Fatal(err)
			}
			live := *second
			live.SetGroupVersionKind(k.GroupVersionKind)
			if _, err := fm.Apply(&live, config, "m", true); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("schema", func(b *testing.B) {
		for b.Loop() {
			if _, err := openapi.ReadType("io.k8s.api.core.v1.Pod"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("plan", func(b *testing.B) {
		for b.Loop() {
			if _, err := New(catalog, types, nil).plan(&corev1.Pod{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
