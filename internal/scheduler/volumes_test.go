package scheduler

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/volume"

	"github.com/proa-dev/proa/internal/api"
)

func TestVolumes(t *testing.T) {
	claimed := func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}
	}
	claim := func(change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", UID: "c"}}
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
		c.Spec.StorageClassName = new("fast")
		c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
		for _, f := range change {
			f(c)
		}
		return c
	}
	bound := func(c *corev1.PersistentVolumeClaim) {
		c.Spec.VolumeName = "pv"
		c.Annotations = map[string]string{volume.AnnBindCompleted: "yes"}
	}
	once := func(c *corev1.PersistentVolumeClaim) {
		bound(c)
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	}
	pv := func(zone string) *corev1.PersistentVolume {
		v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}}
		v.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}
		v.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
		v.Spec.StorageClassName = "fast"
		v.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h"}
		v.Status.Phase = corev1.VolumeAvailable
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{zone}}}}}}}
		return v
	}
	named := func(node string) *corev1.PersistentVolume {
		v := pv("z")
		v.Spec.NodeAffinity.Required.NodeSelectorTerms = []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}
		return v
	}
	class := func(provisioner string) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}, Provisioner: provisioner, VolumeBindingMode: new(storagev1.VolumeBindingWaitForFirstConsumer)}
	}
	csi := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "d", Allocatable: &storagev1.VolumeNodeResources{Count: new(int32)}}}}}
	for _, c := range []struct {
		what    string
		objects []api.Object
		want    string
	}{
		{"no claim", nil, `0/2 nodes are available: persistentvolumeclaim "c" not found.`},
		{"unbound, immediate", []api.Object{claim()}, "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."},
		{"bound in a zone", []api.Object{claim(bound), pv("z")}, "b"},
		{"bound elsewhere", []api.Object{claim(bound), pv("x")}, "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity."},
		{"bound to a volume of one node, by its name", []api.Object{claim(bound), named("a")}, "a"},
		{"bound to nothing", []api.Object{claim(bound)}, `0/2 nodes are available: persistentvolume "pv" not found.`},
		{"delayed, one that is there", []api.Object{claim(), class(volume.NotSupportedProvisioner), pv("z")}, "b"},
		{"delayed, none there", []api.Object{claim(), class(volume.NotSupportedProvisioner)}, "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."},
		{"delayed, made on a node that was chosen", []api.Object{claim(func(c *corev1.PersistentVolumeClaim) {
			c.Annotations = map[string]string{volume.AnnSelectedNode: "a"}
		}), class("d")}, "a"},
		{"too many on the node", []api.Object{claim(bound), pv("z"), csi}, "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, 1 node(s) exceed max volume count."},
		{"one pod alone", []api.Object{claim(once), pv("z"), aPod("x", claimed, func(p *corev1.Pod) { p.Spec.NodeName = "b" })},
			"0/2 nodes are available: 2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod."},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := NewWorld(1, nil)
			w.Set(aNode("a", "y"), aNode("b", "z"))
			w.Set(c.objects...)
			got, why := w.Schedule(t.Context(), aPod("p", claimed))
			if got+why != c.want {
				t.Errorf("got %q, want %q", got+why, c.want)
			}
		})
	}
}

func TestProfiles(t *testing.T) {
	o, err := ParseConfiguration([]byte(`
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
  plugins: {filter: {disabled: [{name: TaintToleration}]}}
  pluginConfig:
  - name: NodeAffinity
    args:
      addedAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms:
          - matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [z]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	w := NewWorld(1, o)
	tainted := func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}
	}
	w.Set(aNode("a", "y"), aNode("b", "z", tainted))
	if got, why := w.Schedule(t.Context(), aPod("p")); got != "b" {
		t.Errorf("got %q %q, want b", got, why)
	}
	e := w.Explain(t.Context(), aPod("q"), nil)
	if e.Node != "b" || e.Nodes[0].Reasons[0] != "node(s) didn't match scheduler-enforced node affinity" || len(e.Nodes[1].Scores) != 7 {
		t.Errorf("got %+v", e)
	}
	if _, err := ParseConfiguration([]byte("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles: [{plugins: {score: {disabled: [{name: Nope}]}}}]")); err == nil {
		t.Error("a plugin that is not there is not refused")
	}
}
