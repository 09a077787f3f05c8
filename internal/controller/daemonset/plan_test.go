package daemonset

import (
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// TestPlans: pods are written as their node, template (o = old, n = new) and state
// (+ ready, - not, ! failed, x on its way out): "an+ bo-". A node that is written
// large has a taint that keeps new pods away.
func TestPlans(t *testing.T) {
	now := time.Unix(100_000, 0)
	rolling := func(surge, unavailable string) func(*appsv1.DaemonSet) {
		return func(ds *appsv1.DaemonSet) {
			ds.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxSurge: ptr.To(intstr.Parse(surge)), MaxUnavailable: ptr.To(intstr.Parse(unavailable))}
		}
	}
	onDelete := func(ds *appsv1.DaemonSet) { ds.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType }
	for what, c := range map[string]struct {
		nodes, pods string
		change      func(*appsv1.DaemonSet)
		manage      string // "create; remove; ended"
		update      string // "create; remove"
	}{
		"none yet":                    {"a b C", "", nil, "a b;;", ";"},
		"all there":                   {"a b", "an+ bn-", nil, ";;", ";"},
		"one that goes is waited for": {"a b", "anx bn+", nil, ";;", ";"},
		"what is there may stay":      {"A", "an+", nil, ";;", ";"},
		"two on one node":             {"a", "an+ an+", nil, ";an+;", ";"},
		"a failed one":                {"a b", "an! bn+", nil, ";;an!", ";"},
		"for a node that is gone":     {"a", "an+ zn?", nil, ";zn?;", ";"},
		"rolled one by one":           {"a b c", "ao+ bo+ co+", nil, ";;", ";ao+"},
		"not while one is down":       {"a b c", "an- bo+ co+", nil, ";;", ";"},
		"what is down already first":  {"a b c", "ao+ bo- co+", nil, ";;", ";bo-"},
		"half of them":                {"a b c d", "ao+ bo+ co+ do+", rolling("0", "50%"), ";;", ";ao+ bo+"},
		"only when somebody deletes":  {"a b", "ao+ bo+", onDelete, ";;", ";"},
		"surges":                      {"a b c", "ao+ bo+ co+", rolling("2", "0"), ";;", "a b;"},
		"surges on":                   {"a b c", "ao+ an- bo+ co+", rolling("2", "0"), ";;", "b;"},
		"the new one is there":        {"a b", "ao+ an+ bo+", rolling("1", "0"), ";ao+;", "b;ao+"},
		"the old one was down":        {"a b", "ao- bo+", rolling("1", "0"), ";;", "a b;"},
	} {
		ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "d", UID: "d"}, Spec: appsv1.DaemonSetSpec{UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType}}}
		rolling("0", "1")(ds)
		if c.change != nil {
			c.change(ds)
		}
		s := &state{ds: ds, hash: "n", now: now}
		for _, name := range strings.Fields(c.nodes) {
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: strings.ToLower(name)}}
			if n.Name != name {
				n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}
			}
			s.nodes = append(s.nodes, n)
		}
		for i, text := range strings.Fields(c.pods) {
			p := podFor(ds, text[:1], text[1:2], metav1.OwnerReference{})
			p.Name, p.CreationTimestamp, p.Spec.NodeName, p.Status.Phase = text, metav1.Unix(int64(i), 0), text[:1], corev1.PodRunning
			switch text[2] {
			case '+':
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
			case '!':
				p.Status.Phase = corev1.PodFailed
			case 'x':
				p.DeletionTimestamp = ptr.To(metav1.NewTime(now))
			case '?':
				p.Spec.NodeName = ""
			}
			s.pods = append(s.pods, p)
		}
		text := func(lists ...[]string) string {
			var parts []string
			for _, l := range lists {
				parts = append(parts, strings.Join(l, " "))
			}
			return strings.Join(parts, ";")
		}
		names := func(pods []*corev1.Pod) (all []string) {
			for _, p := range pods {
				all = append(all, p.Name)
			}
			slices.Sort(all)
			return all
		}
		m, u := s.manage(), s.update()
		if got := text(m.create, names(m.remove), names(m.ended)); got != c.manage {
			t.Errorf("%s: managed by %q", what, got)
		}
		if got := text(u.create, names(u.remove)); got != c.update {
			t.Errorf("%s: updated by %q", what, got)
		}
	}
}

func TestWanted(t *testing.T) {
	taint := func(key string, effect corev1.TaintEffect) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"disk": "ssd"}}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: key, Effect: effect}}}}
	}
	for what, c := range map[string]struct {
		node      *corev1.Node
		spec      corev1.PodSpec
		run, stay bool
	}{
		"any node":                          {&corev1.Node{}, corev1.PodSpec{}, true, true},
		"by name":                           {&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, corev1.PodSpec{NodeName: "m"}, false, false},
		"by label":                          {taint("", ""), corev1.PodSpec{NodeSelector: map[string]string{"disk": "ssd"}}, true, true},
		"without the label":                 {&corev1.Node{}, corev1.PodSpec{NodeSelector: map[string]string{"disk": "ssd"}}, false, false},
		"keeps new ones away":               {taint("k", corev1.TaintEffectNoSchedule), corev1.PodSpec{}, false, true},
		"drives off":                        {taint("k", corev1.TaintEffectNoExecute), corev1.PodSpec{}, false, false},
		"would rather not":                  {taint("k", corev1.TaintEffectPreferNoSchedule), corev1.PodSpec{}, true, true},
		"tolerated":                         {taint("k", corev1.TaintEffectNoExecute), corev1.PodSpec{Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}}, true, true},
		"cordoned":                          {taint(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule), corev1.PodSpec{}, true, true},
		"unreachable":                       {taint(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute), corev1.PodSpec{}, true, true},
		"without a network":                 {taint(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule), corev1.PodSpec{}, false, true},
		"without a network, and needs none": {taint(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule), corev1.PodSpec{HostNetwork: true}, true, true},
	} {
		run, stay := wanted(&appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: c.spec}}}, c.node)
		if run != c.run || stay != c.stay {
			t.Errorf("%s: runs %v, stays %v", what, run, stay)
		}
	}
}
