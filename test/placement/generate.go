// Package placement holds the scheduler to upstream's: clusters and pods are
// generated, upstream's kube-scheduler decides on them through the API of a Proa
// server, and for each of its decisions Proa has to agree: a node that it took is
// one of the best, and a pod that it could not place is refused in the same words.
package placement

import (
	"fmt"
	"math/rand/v2"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api"
)

// Cluster is what a scheduler decides on.
type Cluster struct {
	Objects []api.Object // that are there before: namespaces, nodes, Services, volumes, …
	Pods    []*corev1.Pod
}

// generator of one cluster: the same seed gives the same one.
type generator struct {
	*rand.Rand
	c *Cluster
}

// Generate a cluster and the pods that come, one after the other.
func Generate(seed uint64, pods int) *Cluster {
	g := &generator{rand.New(rand.NewPCG(seed, 7)), &Cluster{}}
	for i := range 3 {
		g.add(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("team-", i), Labels: map[string]string{"tier": fmt.Sprint("t", i%2)}}})
	}
	g.nodes(8 + g.IntN(30))
	g.groups()
	g.storage()
	for i := range pods {
		g.c.Pods = append(g.c.Pods, g.pod(i))
	}
	return g.c
}

func (g *generator) add(o api.Object) { g.c.Objects = append(g.c.Objects, o) }

func (g *generator) one(in int) bool { return g.IntN(in) == 0 }

func of[T any](g *generator, all ...T) T { return all[g.IntN(len(all))] }

func (g *generator) nodes(count int) {
	for i := range count {
		name := fmt.Sprintf("node-%03d", i)
		zone := fmt.Sprint("z", g.IntN(3))
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelTopologyZone: zone, corev1.LabelTopologyRegion: "r" + zone[1:], "disk": of(g, "ssd", "hdd"), "rack": fmt.Sprint(g.IntN(4)),
		}}}
		if g.one(8) {
			delete(n.Labels, corev1.LabelTopologyZone)
		}
		if g.one(8) {
			delete(n.Labels, "rack")
		}
		room := corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(of(g, "2", "4", "4", "8")), corev1.ResourceMemory: resource.MustParse(of(g, "4Gi", "8Gi", "16Gi")),
			corev1.ResourcePods: resource.MustParse(of(g, "6", "110", "110")), corev1.ResourceEphemeralStorage: resource.MustParse("20Gi"),
		}
		if g.one(3) {
			room["example.com/gpu"] = resource.MustParse(of(g, "1", "4"))
		}
		if g.one(5) {
			room["hugepages-2Mi"] = resource.MustParse("512Mi")
		}
		n.Status.Capacity, n.Status.Allocatable = room, room
		if g.one(5) {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "dedicated", Value: of(g, "a", "b"), Effect: of(g, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute)})
		}
		if g.one(4) {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "slow", Effect: corev1.TaintEffectPreferNoSchedule})
		}
		n.Spec.Unschedulable = g.one(15)
		if g.one(3) {
			n.Status.Images = append(n.Status.Images, corev1.ContainerImage{Names: []string{"registry.test/big:1"}, SizeBytes: 700 << 20})
		}
		if g.one(2) {
			n.Status.Images = append(n.Status.Images, corev1.ContainerImage{Names: []string{"registry.test/app:latest", "registry.test/app@sha256:00"}, SizeBytes: 90 << 20})
		}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}}
		g.add(n)
		if g.one(2) {
			g.add(&storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{
				Name: "csi.test", NodeID: name, Allocatable: &storagev1.VolumeNodeResources{Count: ptr.To(int32(1 + g.IntN(3)))},
			}}}})
		}
	}
}

// groups are Services and ReplicaSets, by which pods without constraints spread.
func (g *generator) groups() {
	for i := range 4 {
		app := fmt.Sprint("app-", i)
		ns := fmt.Sprint("team-", i%3)
		if i%2 == 0 {
			g.add(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: app}, Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": app}, Ports: []corev1.ServicePort{{Port: 80}},
			}})
		}
		template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}}}
		template.Spec.Containers = []corev1.Container{{Name: "c", Image: "x"}}
		g.add(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: app}, Spec: appsv1.ReplicaSetSpec{
			Replicas: ptr.To(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}, Template: template,
		}})
	}
}
