package placement

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func (g *generator) pod(i int) *corev1.Pod {
	app := fmt.Sprint("app-", g.IntN(5))
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprint("team-", g.IntN(3)), Name: fmt.Sprintf("pod-%04d", i), Labels: map[string]string{
		"app": app, "version": fmt.Sprint("v", g.IntN(2)),
	}}}
	p.Spec.TerminationGracePeriodSeconds = ptr.To(int64(0))
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: of(g, "registry.test/app", "registry.test/big:1", "registry.test/none:2"), Resources: g.requests()}}
	g.shape(p)
	for range 1 + g.IntN(2) {
		switch g.IntN(14) {
		case 0:
			p.Spec.NodeSelector = map[string]string{"disk": of(g, "ssd", "hdd", "tape")}
		case 1:
			g.nodeAffinity(p)
		case 2:
			p.Spec.Tolerations = append(p.Spec.Tolerations, of(g,
				corev1.Toleration{Key: "dedicated", Operator: corev1.TolerationOpEqual, Value: "a"},
				corev1.Toleration{Key: "dedicated", Operator: corev1.TolerationOpExists},
				corev1.Toleration{Operator: corev1.TolerationOpExists},
				corev1.Toleration{Key: "slow", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectPreferNoSchedule}))
		case 3, 4, 5:
			g.spread(p)
		case 6, 7:
			g.podAffinity(p)
		case 8, 9:
			g.podAntiAffinity(p)
		case 10:
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: int32(8000 + g.IntN(2)), HostIP: of(g, "", "127.0.0.1")}}
		case 11:
			g.volumes(p)
		case 12:
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: app, UID: "0", Controller: ptr.To(true)}}
		}
	}
	return p
}

func (g *generator) requests() corev1.ResourceRequirements {
	r, limits := corev1.ResourceList{}, corev1.ResourceList{}
	if !g.one(6) {
		r[corev1.ResourceCPU] = resource.MustParse(of(g, "50m", "200m", "500m", "1", "1500m", "5"))
	}
	if !g.one(6) {
		r[corev1.ResourceMemory] = resource.MustParse(of(g, "64Mi", "300Mi", "1Gi", "3Gi"))
	}
	if g.one(10) {
		r["example.com/gpu"] = resource.MustParse(of(g, "1", "2"))
		limits["example.com/gpu"] = r["example.com/gpu"]
	}
	if g.one(20) {
		r[corev1.ResourceEphemeralStorage] = resource.MustParse("15Gi")
	}
	return corev1.ResourceRequirements{Requests: r, Limits: limits}
}

// shape of the pod besides its container: what else asks for resources.
func (g *generator) shape(p *corev1.Pod) {
	switch g.IntN(12) {
	case 0:
		p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "registry.test/app", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}}}}
	case 1:
		p.Spec.InitContainers = []corev1.Container{{Name: "s", Image: "registry.test/big:1", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways), Resources: g.requests()}}
	case 2:
		p.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("6")}}
	case 3:
		p.Spec.Overhead = nil // a RuntimeClass would set it
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "d", Image: "registry.test/none:2", Resources: g.requests()})
	case 4:
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "image", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "registry.test/big:1"}}})
	}
}

func (g *generator) nodeAffinity(p *corev1.Pod) {
	in := func(key string, values ...string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: corev1.NodeSelectorOpIn, Values: values}}}
	}
	a := &corev1.NodeAffinity{}
	switch g.IntN(5) {
	case 0:
		a.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{in(corev1.LabelTopologyZone, "z0", "z1")}}
	case 1:
		a.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
			{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "rack", Operator: corev1.NodeSelectorOpGt, Values: []string{"1"}}}},
			{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "rack", Operator: corev1.NodeSelectorOpDoesNotExist}}},
		}}
	case 2:
		var names []string
		for range 1 + g.IntN(3) {
			names = append(names, fmt.Sprintf("node-%03d", g.IntN(12)))
		}
		a.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: names[:1]}},
		}}}
		for _, n := range names[1:] {
			a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms = append(a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, corev1.NodeSelectorTerm{
				MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{n}}},
			})
		}
	default:
		a.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.PreferredSchedulingTerm{
			{Weight: int32(1 + g.IntN(100)), Preference: in("disk", "ssd")}, {Weight: int32(1 + g.IntN(100)), Preference: in(corev1.LabelTopologyZone, "z1")},
		}
	}
	affinity(p).NodeAffinity = a
}

func affinity(p *corev1.Pod) *corev1.Affinity {
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	return p.Spec.Affinity
}

func (g *generator) spread(p *corev1.Pod) {
	for _, key := range []string{of(g, corev1.LabelTopologyZone, "rack"), corev1.LabelHostname}[:1+g.IntN(2)] {
		c := corev1.TopologySpreadConstraint{
			MaxSkew: int32(1 + g.IntN(3)), TopologyKey: key, WhenUnsatisfiable: of(g, corev1.DoNotSchedule, corev1.ScheduleAnyway),
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": p.Labels["app"]}},
		}
		if g.one(4) {
			c.LabelSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpExists}}}
		}
		if c.WhenUnsatisfiable == corev1.DoNotSchedule && g.one(4) {
			c.MinDomains = ptr.To(int32(2 + g.IntN(4)))
		}
		if g.one(4) {
			c.NodeAffinityPolicy = ptr.To(of(g, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore))
		}
		if g.one(4) {
			c.NodeTaintsPolicy = ptr.To(of(g, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore))
		}
		if g.one(4) {
			c.MatchLabelKeys = []string{"version"}
		}
		if len(p.Spec.TopologySpreadConstraints) < 2 {
			p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
		}
	}
	if s := p.Spec.TopologySpreadConstraints; len(s) == 2 && s[0].TopologyKey == s[1].TopologyKey && s[0].WhenUnsatisfiable == s[1].WhenUnsatisfiable {
		p.Spec.TopologySpreadConstraints = s[:1]
	}
}

func (g *generator) term(p *corev1.Pod) corev1.PodAffinityTerm {
	t := corev1.PodAffinityTerm{
		TopologyKey:   of(g, corev1.LabelTopologyZone, corev1.LabelHostname, "rack"),
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint("app-", g.IntN(5))}},
	}
	if g.one(2) {
		t.LabelSelector.MatchLabels["app"] = p.Labels["app"]
	}
	switch g.IntN(6) {
	case 0:
		t.NamespaceSelector = &metav1.LabelSelector{}
	case 1:
		t.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "t0"}}
	case 2:
		t.Namespaces = []string{"team-0", "team-1"}
	case 3:
		t.MatchLabelKeys = []string{"version"}
	case 4:
		t.MismatchLabelKeys = []string{"version"}
	}
	return t
}

func (g *generator) podAffinity(p *corev1.Pod) {
	a := &corev1.PodAffinity{}
	if g.one(2) {
		a.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{g.term(p)}
		if g.one(3) {
			a.RequiredDuringSchedulingIgnoredDuringExecution = append(a.RequiredDuringSchedulingIgnoredDuringExecution, g.term(p))
		}
	} else {
		a.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.WeightedPodAffinityTerm{{Weight: int32(1 + g.IntN(100)), PodAffinityTerm: g.term(p)}}
	}
	affinity(p).PodAffinity = a
}

func (g *generator) podAntiAffinity(p *corev1.Pod) {
	a := &corev1.PodAntiAffinity{}
	if g.one(2) {
		a.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{g.term(p)}
	} else {
		a.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.WeightedPodAffinityTerm{
			{Weight: int32(1 + g.IntN(100)), PodAffinityTerm: g.term(p)}, {Weight: int32(1 + g.IntN(100)), PodAffinityTerm: g.term(p)},
		}
	}
	affinity(p).PodAntiAffinity = a
}
