package deployment

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

func aDeployment(replicas int32, surge, unavailable string) *appsv1.Deployment {
	s, u := intstr.Parse(surge), intstr.Parse(unavailable)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "ns", UID: "d", Generation: 1},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, RevisionHistoryLimit: ptr.To[int32](2), ProgressDeadlineSeconds: ptr.To[int32](600),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "d"}},
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &s, MaxUnavailable: &u},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "d"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}},
			},
		},
	}
}

// cluster carries out plans as the ReplicaSet controller and kubelets would: at
// each step some pods of each set become available or go.
type cluster struct {
	d    *appsv1.Deployment
	sets []*appsv1.ReplicaSet
	now  time.Time
	rand *rand.Rand
}

func (c *cluster) step() plan {
	c.now = c.now.Add(time.Second)
	busy := false
	_, old := split(c.d, c.sets)
	for _, rs := range old {
		busy = busy || rs.Status.Replicas > 0
	}
	p := decide(state{d: c.d, sets: c.sets, busy: busy, now: c.now})
	if p.create != nil {
		p.create.UID = types.UID(p.create.Name)
		p.create.CreationTimestamp = metav1.NewTime(c.now)
		c.sets = append(c.sets, p.create)
	}
	for _, u := range p.update {
		for i, rs := range c.sets {
			if rs.UID == u.UID {
				c.sets[i] = u
			}
		}
	}
	for _, gone := range p.remove {
		c.sets = slices.DeleteFunc(c.sets, func(rs *appsv1.ReplicaSet) bool { return rs.UID == gone.UID })
	}
	if p.revision != "" {
		metav1.SetMetaDataAnnotation(&c.d.ObjectMeta, revisionAnnotation, p.revision)
	}
	c.d.Status = p.status
	return p
}

func (c *cluster) live() {
	for i, rs := range c.sets {
		rs = rs.DeepCopy()
		st := &rs.Status
		st.ObservedGeneration, st.TerminatingReplicas = rs.Generation, ptr.To[int32](0)
		st.Replicas = *rs.Spec.Replicas
		st.AvailableReplicas = min(st.AvailableReplicas, st.Replicas)
		if st.AvailableReplicas < st.Replicas {
			st.AvailableReplicas += c.rand.Int32N(st.Replicas - st.AvailableReplicas + 1)
		}
		st.ReadyReplicas = st.AvailableReplicas
		c.sets[i] = rs
	}
}

func (c *cluster) settle(t *testing.T, check func()) {
	t.Helper()
	for range 500 {
		c.step()
		if check != nil {
			check()
		}
		c.live()
		p := decide(state{d: c.d, sets: c.sets, now: c.now})
		if p.create == nil && len(p.update) == 0 && p.status.AvailableReplicas == *c.d.Spec.Replicas && p.status.UpdatedReplicas == *c.d.Spec.Replicas && p.status.Replicas == *c.d.Spec.Replicas {
			c.step()
			return
		}
	}
	t.Fatalf("not settled: %+v", c.d.Status)
}

// A rollout never has more pods than the surge allows nor fewer available ones
// than may be missing, whatever the pods do meanwhile.
func TestRolloutStaysWithinItsFences(t *testing.T) {
	for _, f := range []struct{ surge, unavailable string }{{"25%", "25%"}, {"1", "0"}, {"0", "1"}, {"100%", "0"}, {"0", "0"}, {"3", "50%"}} {
		for _, replicas := range []int32{1, 3, 10, 33} {
			t.Run(fmt.Sprintf("%s,%s,%d", f.surge, f.unavailable, replicas), func(t *testing.T) {
				d := aDeployment(replicas, f.surge, f.unavailable)
				c := &cluster{d: d, now: time.Unix(1e9, 0), rand: rand.New(rand.NewPCG(1, uint64(replicas)))}
				c.settle(t, nil)
				most, least := replicas+surge(d), replicas-unavailable(d)
				for version := 2; version < 6; version++ {
					d.Spec.Template.Spec.Containers[0].Image = fmt.Sprintf("v%d", version)
					d.Generation++
					c.settle(t, func() {
						if n := total(c.sets); n > most {
							t.Fatalf("%d pods wanted, at most %d allowed", n, most)
						}
						var least1 int32
						for _, rs := range c.sets { // the worst that scaling can do at once
							least1 += min(rs.Status.AvailableReplicas, *rs.Spec.Replicas)
						}
						if least1 < least {
							t.Fatalf("%d may be available, at least %d must", least1, least)
						}
					})
				}
				cond := condition(&d.Status, appsv1.DeploymentProgressing)
				if cond == nil || cond.Reason != "NewReplicaSetAvailable" || d.Annotations[revisionAnnotation] != "5" {
					t.Errorf("condition %+v, revision %s", cond, d.Annotations[revisionAnnotation])
				}
				if len(c.sets) > 3 {
					t.Errorf("%d sets are kept, want 3", len(c.sets))
				}
			})
		}
	}
}

func TestRollbackTakesTheOldSetAgain(t *testing.T) {
	d := aDeployment(3, "1", "0")
	c := &cluster{d: d, now: time.Unix(1e9, 0), rand: rand.New(rand.NewPCG(1, 1))}
	c.settle(t, nil)
	first := c.sets[0].Name
	d.Spec.Template.Spec.Containers[0].Image = "v2"
	c.settle(t, nil)
	d.Spec.Template.Spec.Containers[0].Image = "v1"
	c.settle(t, nil)
	now, _ := split(d, c.sets)
	if now.Name != first || now.Annotations[revisionAnnotation] != "3" || now.Annotations[historyAnnotation] != "1" {
		t.Errorf("got %s with %v", now.Name, now.Annotations)
	}
}

func TestScaleInTheMiddleOfARollout(t *testing.T) {
	d := aDeployment(10, "3", "2")
	c := &cluster{d: d, now: time.Unix(1e9, 0), rand: rand.New(rand.NewPCG(1, 1))}
	c.settle(t, nil)
	d.Spec.Template.Spec.Containers[0].Image = "broken"
	c.step()
	c.step() // old 8, new 5, none of which becomes available
	if got := fmt.Sprint(*c.sets[0].Spec.Replicas, *c.sets[1].Spec.Replicas); got != "8 3" && got != "8 5" {
		t.Fatalf("in the middle: %s", got)
	}
	c.step()
	before := total(c.sets)
	*d.Spec.Replicas = 20
	c.step()
	if got := total(c.sets); got != 23 {
		t.Errorf("%d pods after scaling from %d, want 20 and the surge of 3", got, before)
	}
	if *c.sets[0].Spec.Replicas <= 8 || *c.sets[1].Spec.Replicas <= 5 {
		t.Errorf("old %d, new %d: both should have grown", *c.sets[0].Spec.Replicas, *c.sets[1].Spec.Replicas)
	}
}

func TestRecreateWaits(t *testing.T) {
	d := aDeployment(3, "1", "0")
	d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	c := &cluster{d: d, now: time.Unix(1e9, 0), rand: rand.New(rand.NewPCG(1, 1))}
	c.settle(t, nil)
	d.Spec.Template.Spec.Containers[0].Image = "v2"
	c.step()
	if p := c.step(); p.create != nil {
		t.Fatal("the new set was made while old pods were there")
	}
	c.live()
	c.settle(t, nil)
}

func TestDeadline(t *testing.T) {
	d := aDeployment(1, "1", "0")
	c := &cluster{d: d, now: time.Unix(1e9, 0), rand: rand.New(rand.NewPCG(1, 1))}
	c.step()
	p := c.step()
	if p.again < 590*time.Second || p.again > 602*time.Second {
		t.Errorf("looks again after %v, want about the deadline", p.again)
	}
	c.now = c.now.Add(601 * time.Second)
	c.step()
	if cond := condition(&d.Status, appsv1.DeploymentProgressing); cond == nil || cond.Reason != "ProgressDeadlineExceeded" || cond.Status != corev1.ConditionFalse {
		t.Errorf("got %+v", cond)
	}
}

func TestPaused(t *testing.T) {
	d := aDeployment(3, "1", "0")
	c := &cluster{d: d, now: time.Unix(1e9, 0), rand: rand.New(rand.NewPCG(1, 1))}
	c.settle(t, nil)
	d.Spec.Paused = true
	d.Spec.Template.Spec.Containers[0].Image = "v2"
	*d.Spec.Replicas = 5
	c.step()
	if len(c.sets) != 1 || *c.sets[0].Spec.Replicas != 5 {
		t.Errorf("%d sets, %d replicas: want the old one scaled", len(c.sets), *c.sets[0].Spec.Replicas)
	}
	if cond := condition(&d.Status, appsv1.DeploymentProgressing); cond.Reason != "DeploymentPaused" {
		t.Errorf("got %+v", cond)
	}
}
