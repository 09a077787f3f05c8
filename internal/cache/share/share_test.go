package share

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/randfill"
)

func pod(name, label string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{"app": label},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m", FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:spec":{}}`)}}},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "c", Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "N", Value: name}},
			Resources:     corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1")}},
			LivenessProbe: &corev1.Probe{PeriodSeconds: 3, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/x"}}},
		}}},
	}
}

func addr(v any) unsafe.Pointer { return reflect.ValueOf(v).UnsafePointer() }

func TestPartsAreShared(t *testing.T) {
	s := New()
	a, b := pod("a", "x"), pod("b", "x")
	s.Object(a, nil)
	s.Object(b, nil)
	if !reflect.DeepEqual(b, pod("b", "x")) {
		t.Errorf("the object is another: %+v", b)
	}
	ca, cb := &a.Spec.Containers[0], &b.Spec.Containers[0]
	for what, same := range map[string]bool{
		"labels":         addr(a.Labels) == addr(b.Labels),
		"managed fields": addr(a.ManagedFields) == addr(b.ManagedFields),
		"limits":         addr(ca.Resources.Limits) == addr(cb.Resources.Limits),
		"probe":          ca.LivenessProbe == cb.LivenessProbe,
	} {
		if !same {
			t.Errorf("%s are kept twice", what)
		}
	}
	if addr(ca.Env) == addr(cb.Env) {
		t.Error("what differs is one")
	}
}

// TestNextVersion: also what no other object has is taken over from the version before.
func TestNextVersion(t *testing.T) {
	s := New()
	a := pod("a", "x")
	s.Object(a, nil)
	for i := range 2 * slots { // the table forgets
		s.Object(pod(fmt.Sprint("p", i), fmt.Sprint(i)), nil)
	}
	b := a.DeepCopy()
	b.Status.PodIP = "10.0.0.1"
	s.Object(b, a)
	if addr(a.Spec.Containers) != addr(b.Spec.Containers) || addr(a.Labels) != addr(b.Labels) {
		t.Error("what did not change is kept twice")
	}
	if a.Status.PodIP != "" || b.Status.PodIP != "10.0.0.1" {
		t.Error("what changed is one")
	}
}

// TestNobodyAppends: an append to a shared slice makes a new one.
func TestNobodyAppends(t *testing.T) {
	s := New()
	a, b := pod("a", "x"), pod("a", "x")
	a.Finalizers = append(make([]string, 0, 4), "f")
	b.Finalizers = append(make([]string, 0, 4), "f")
	s.Object(a, nil)
	s.Object(b, nil)
	x, y := append(a.Finalizers, "x"), append(b.Finalizers, "y")
	if x[1] != "x" || y[1] != "y" {
		t.Errorf("%v %v", x, y)
	}
}

// TestRandom: an object says the same before and after, whatever is in it.
func TestRandom(t *testing.T) {
	s := New()
	fill := randfill.NewWithSeed(1).NilChance(0.3).NumElements(0, 3).MaxDepth(12).Funcs(
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewQuantity(c.Int63n(9), resource.DecimalSI)
		},
		func(m *metav1.Time, c randfill.Continue) { *m = metav1.Unix(c.Int63n(9), 0) },
		func(x *string, c randfill.Continue) { *x = fmt.Sprint(c.Intn(3)) },
	)
	var prior *corev1.Pod
	for range 300 {
		p := &corev1.Pod{}
		fill.Fill(p)
		want := p.DeepCopy()
		old := prior.DeepCopy()
		s.Object(p, prior)
		if !reflect.DeepEqual(p, want) {
			t.Fatalf("got  %+v\nwant %+v", p, want)
		}
		if !reflect.DeepEqual(prior, old) {
			t.Fatal("the version before changed")
		}
		if prior = p; rand.IntN(3) == 0 {
			prior = nil
		}
	}
}

// TestOthers are left alone.
func TestOthers(t *testing.T) {
	s := New()
	s.Object(nil, nil)
	s.Object((*corev1.Pod)(nil), nil)
	s.Object(map[string]string{}, nil)
	s.Object(pod("a", "x"), &corev1.Node{})
	big := &corev1.ConfigMap{Data: map[string]string{"k": string(make([]byte, bulky+1))}}
	s.Object(big, nil)
	s.Object(big.DeepCopy(), nil)
	for i := range s.table {
		if p := s.table[i].Load(); p != nil && p.at == addr(big.Data) {
			t.Error("the table keeps what is bulky")
		}
	}
}

func TestConcurrently(t *testing.T) {
	s := New()
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 200 {
				p := pod(fmt.Sprint(g, i), fmt.Sprint(i%7))
				want := p.DeepCopy()
				if s.Object(p, nil); !reflect.DeepEqual(p, want) {
					t.Error("the object is another")
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkObject(b *testing.B) {
	s := New()
	b.ReportAllocs()
	for i := range b.N {
		b.StopTimer()
		p := pod(fmt.Sprint("p", i), fmt.Sprint("t", i%10))
		b.StartTimer()
		s.Object(p, nil)
	}
}
