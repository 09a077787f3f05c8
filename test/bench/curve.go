package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/simulate"
	"github.com/proa-dev/proa/test/bench/figure"
)

// curve is how fast Proa's scheduler is as clusters grow: "proa simulate" with
// nodes in three zones and 30,000 pods, decided alone; and once the whole way,
// through the API server in memory, with binds and watches.
func (b *bench) curve(ctx context.Context) error {
	pods := []struct {
		name string
		pod  *corev1.Pod
	}{
		{"plain", pod(func(*corev1.PodSpec) {})},
		{"spread over zones", pod(func(s *corev1.PodSpec) {
			s.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
				MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: simulated(),
			}}
		})},
		{"with a preferred affinity", pod(func(s *corev1.PodSpec) {
			s.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
				Weight: 1, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: corev1.LabelTopologyZone, LabelSelector: simulated()},
			}}}}
		})},
	}
	const count = 30_000
	run := func(name string, c simulate.Config) error {
		for range b.count {
			r, err := simulate.Run(ctx, c)
			if err != nil {
				return err
			}
			if r.Placed != c.Pods {
				return fmt.Errorf("%s: %d of %d pods were placed", name, r.Placed, c.Pods)
			}
			b.detail("%-60s %8.0f /s", name, r.PerSecond)
			b.add("curve", figure.Proa)(name, figure.PerSecond, r.PerSecond)
		}
		return nil
	}
	for _, nodes := range []int{100, 300, 1000, 3000, 5000, 10_000, 15_000} {
		shapes := simulate.Uniform(nodes)
		for i := range shapes { // so that the smallest cluster has room, too
			shapes[i].Allocatable = corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("320"), corev1.ResourceMemory: resource.MustParse("2Ti"), corev1.ResourcePods: resource.MustParse("1000"),
			}
		}
		for _, p := range pods {
			if err := run(fmt.Sprintf("decided: pods %s, %d nodes", p.name, nodes), simulate.Config{Shapes: shapes, Pods: count, Pod: p.pod, Direct: true, Seed: 1}); err != nil {
				return err
			}
		}
	}
	for _, p := range pods {
		if err := run(fmt.Sprintf("bound: pods %s, 5000 nodes", p.name), simulate.Config{Shapes: simulate.Uniform(5000), Pods: count, Pod: p.pod, Seed: 1}); err != nil {
			return err
		}
	}
	return nil
}

func simulated() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": "simulated"}}
}

func pod(change func(*corev1.PodSpec)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "simulated"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "registry.k8s.io/pause:3.10", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("500Mi")},
		}}}},
	}
	change(&p.Spec)
	return p
}
