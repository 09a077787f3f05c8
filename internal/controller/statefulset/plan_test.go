package statefulset

import (
	"fmt"
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

// TestDecide: pods are written as their ordinal, revision (o = old, n = new) and
// state (+ ready, - not, ! failed, x on its way out): "0n+ 1n-".
func TestDecide(t *testing.T) {
	now := time.Unix(100_000, 0)
	parallel := func(s *appsv1.StatefulSet) { s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement }
	onDelete := func(s *appsv1.StatefulSet) { s.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType }
	from := func(n int32) func(*appsv1.StatefulSet) {
		return func(s *appsv1.StatefulSet) { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: n} }
	}
	rolling := func(partition int32, most int) func(*appsv1.StatefulSet) {
		return func(s *appsv1.StatefulSet) {
			r := &appsv1.RollingUpdateStatefulSetStrategy{Partition: &partition}
			if most > 0 {
				r.MaxUnavailable = ptr.To(intstr.FromInt(most))
			}
			s.Spec.UpdateStrategy.RollingUpdate = r
		}
	}
	deleted := func(s *appsv1.StatefulSet) { s.DeletionTimestamp = ptr.To(metav1.NewTime(now)) }
	for what, c := range map[string]struct {
		replicas int32
		pods     string
		change   []func(*appsv1.StatefulSet)
		create   string // as above, without the state
		remove   string // names
	}{
		"the first":                            {3, "", nil, "0n", ""},
		"the next, once it is ready":           {3, "0n+", nil, "1n", ""},
		"none while one is not ready":          {3, "0n-", nil, "", ""},
		"all at once":                          {3, "", []func(*appsv1.StatefulSet){parallel}, "0n 1n 2n", ""},
		"a gap first":                          {3, "0n+ 2n+", nil, "1n", ""},
		"from another number":                  {2, "5n+", []func(*appsv1.StatefulSet){from(5)}, "6n", ""},
		"numbers below the first go":           {1, "0n+ 5n+", []func(*appsv1.StatefulSet){from(5)}, "", "a-0"},
		"a failed one goes":                    {2, "0n! 1n+", nil, "", "a-0"},
		"a failed one that goes is waited for": {3, "0n+ 1nx", nil, "", ""},
		"too many: the highest goes":           {1, "0n+ 1n+ 2n+", nil, "", "a-2"},
		"one at a time":                        {1, "0n+ 1n+ 2nx", nil, "", ""},
		"not while a lower one is not ready":   {1, "0n- 1n+ 2n+", nil, "", ""},
		"all of them at once":                  {1, "0n- 1n+ 2n+", []func(*appsv1.StatefulSet){parallel}, "", "a-2 a-1"},
		"rolled from the highest":              {3, "0o+ 1o+ 2o+", nil, "", "a-2"},
		"on, once it is ready":                 {3, "0o+ 1o+ 2n+", nil, "", "a-1"},
		"not before":                           {3, "0o+ 1o+ 2n-", nil, "", ""},
		"down to the partition":                {3, "0o+ 1o+ 2n+", []func(*appsv1.StatefulSet){rolling(2, 0)}, "", ""},
		"two at a time":                        {3, "0o+ 1o+ 2o+", []func(*appsv1.StatefulSet){rolling(0, 2)}, "", "a-2 a-1"},
		"two, of which one is down":            {3, "0o+ 1o+ 2n-", []func(*appsv1.StatefulSet){rolling(0, 2), parallel}, "", "a-1"},
		"below the partition as it was":        {3, "1o+ 2o+", []func(*appsv1.StatefulSet){rolling(1, 0)}, "0o", ""},
		"only when somebody deletes":           {2, "0o+ 1o+", []func(*appsv1.StatefulSet){onDelete}, "", ""},
		"nothing while it is deleted":          {3, "0n+", []func(*appsv1.StatefulSet){deleted}, "", ""},
	} {
		set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "a"}, Spec: appsv1.StatefulSetSpec{
			Replicas: &c.replicas, PodManagementPolicy: appsv1.OrderedReadyPodManagement,
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType},
		}}
		for _, f := range c.change {
			f(set)
		}
		s := &state{set: set, now: now, current: revision{"o", &corev1.PodTemplateSpec{}}, update: revision{"n", &corev1.PodTemplateSpec{}}}
		for _, text := range strings.Fields(c.pods) {
			p := podOf(set, &corev1.PodTemplateSpec{}, text[1:2], int(text[0]-'0'))
			p.Status.Phase = corev1.PodRunning
			switch text[2] {
			case '+', 'x':
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
				if text[2] == 'x' {
					p.DeletionTimestamp = ptr.To(metav1.NewTime(now))
				}
			case '!':
				p.Status.Phase = corev1.PodFailed
			}
			s.pods = append(s.pods, p)
		}
		p := s.decide()
		var create, remove []string
		for _, pod := range p.create {
			create = append(create, fmt.Sprint(ordinal(set, pod), pod.Labels[appsv1.StatefulSetRevisionLabel]))
		}
		for _, pod := range p.remove {
			remove = append(remove, pod.Name)
		}
		if !slices.Equal(create, strings.Fields(c.create)) || !slices.Equal(remove, strings.Fields(c.remove)) {
			t.Errorf("%s: creates %v, removes %v", what, create, remove)
		}
	}
}
