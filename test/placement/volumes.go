package placement

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// storage: classes of each sort, volumes that are there, and a driver that says how
// much it can make where.
func (g *generator) storage() {
	wait := ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)
	g.add(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "static"}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: wait})
	g.add(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "made"}, Provisioner: "csi.test", VolumeBindingMode: wait, AllowedTopologies: []corev1.TopologySelectorTerm{{
		MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: corev1.LabelTopologyZone, Values: []string{"z0", "z1"}}},
	}}})
	g.add(&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "csi.test"}, Spec: storagev1.CSIDriverSpec{StorageCapacity: ptr.To(true), AttachRequired: ptr.To(false)}})
	size := resource.MustParse("5Gi")
	g.add(&storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Namespace: "team-0", Name: "made"}, StorageClassName: "made", Capacity: &size,
		NodeTopology: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelTopologyZone: "z0"}}})
	for i := range 6 {
		v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("static-", i)}, Spec: corev1.PersistentVolumeSpec{
			StorageClassName: "static", Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(of(g, "1Gi", "2Gi"))},
			AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{fmt.Sprint("z", g.IntN(3))}}},
			}}}},
		}}
		g.add(v)
	}
	for i := range 8 { // volumes that have a claim already
		name, mode := fmt.Sprint("bound-", i), corev1.ReadWriteOnce
		if i%4 == 0 {
			mode = corev1.ReadWriteOncePod
		}
		v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}, Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: size}, AccessModes: []corev1.PersistentVolumeAccessMode{mode},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			ClaimRef:                      &corev1.ObjectReference{Namespace: fmt.Sprint("team-", i%3), Name: name},
			PersistentVolumeSource:        corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.test", VolumeHandle: name}},
		}}
		if g.one(2) {
			v.Labels[corev1.LabelTopologyZone] = of(g, "z0", "z1", "z0__z2")
		}
		g.add(v)
		g.add(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprint("team-", i%3), Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: ptr.To(""), VolumeName: name, AccessModes: []corev1.PersistentVolumeAccessMode{mode},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: size}},
		}})
	}
	for i := range 6 { // claims that get theirs with a pod
		g.add(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprint("team-", i%3), Name: fmt.Sprint("late-", i)}, Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: ptr.To(of(g, "static", "made")), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(of(g, "1Gi", "2Gi", "8Gi"))}},
		}})
	}
}

func (g *generator) volumes(p *corev1.Pod) {
	var team int
	_, _ = fmt.Sscanf(p.Namespace, "team-%d", &team)
	names := map[string]bool{}
	for _, v := range p.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			names[v.PersistentVolumeClaim.ClaimName] = true
		}
	}
	for range 1 + g.IntN(2) {
		number := g.IntN(9)
		if !g.one(5) {
			number = team + 3*(number/3) // one of the team's own
		}
		claim := fmt.Sprint(of(g, "bound-", "bound-", "late-"), number)
		if names[claim] {
			continue
		}
		names[claim] = true
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: fmt.Sprint("v", len(p.Spec.Volumes)), VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		}})
	}
}
