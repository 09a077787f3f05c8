package deployment

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/proa-dev/proa/internal/controller/owned"
)

// Annotations that a Deployment writes on its sets and itself.
const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history"
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation      = "deployment.kubernetes.io/max-replicas"
	hashLabel          = appsv1.DefaultDeploymentUniqueLabelKey
	historyMost        = 2000 // characters
)

var gvk = appsv1.SchemeGroupVersion.WithKind("Deployment")

// sameTemplate compares two templates but for the label that tells sets apart.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	x, y := *a, *b
	x.Labels, y.Labels = without(a.Labels, hashLabel), without(b.Labels, hashLabel)
	return equality.Semantic.DeepEqual(x, y)
}

func without(m map[string]string, key string) map[string]string {
	if _, ok := m[key]; !ok {
		return m
	}
	m = maps.Clone(m)
	delete(m, key)
	return m
}

// adoptRevision gives the set of the current template the newest revision, or
// plans to create it where create allows.
func (w *parts) adoptRevision(create bool) {
	newest := int64(0)
	for _, rs := range w.old {
		newest = max(newest, revisionOf(rs))
	}
	revision := strconv.FormatInt(newest+1, 10)
	if w.new == nil {
		if create {
			w.p.create = w.newSet(revision)
			w.p.revision = revision
		}
		return
	}
	c := w.changed(w.new)
	if revisionOf(c) <= newest {
		remember(c, revision)
	}
	w.copyAnnotations(c)
	c.Spec.MinReadySeconds = w.d.Spec.MinReadySeconds
	w.keep(w.new, c)
	if at := c.Annotations[revisionAnnotation]; w.d.Annotations[revisionAnnotation] != at {
		w.p.revision = at
	}
	if w.d.Spec.ProgressDeadlineSeconds != nil && condition(&w.d.Status, appsv1.DeploymentProgressing) == nil {
		setCondition(&w.d.Status, appsv1.DeploymentProgressing, corev1.ConditionTrue, "FoundNewReplicaSet",
			fmt.Sprintf("Found new replica set %q", w.new.Name), w.now)
	}
}

// remember a set's old revision in its history when it gets a new one.
func remember(rs *appsv1.ReplicaSet, revision string) {
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	if before := rs.Annotations[revisionAnnotation]; before != "" {
		history := rs.Annotations[historyAnnotation]
		if history != "" {
			history += ","
		}
		history += before
		for len(history) > historyMost {
			_, history, _ = strings.Cut(history, ",")
		}
		rs.Annotations[historyAnnotation] = history
	}
	rs.Annotations[revisionAnnotation] = revision
}

// copyAnnotations of the Deployment to its current set, but for those that are
// about one object alone.
func (w *parts) copyAnnotations(rs *appsv1.ReplicaSet) {
	for k, v := range w.d.Annotations {
		switch k {
		case corev1.LastAppliedConfigAnnotation, revisionAnnotation, historyAnnotation, desiredAnnotation, maxAnnotation, appsv1.DeprecatedRollbackTo:
			continue
		}
		if have, ok := rs.Annotations[k]; !ok || have != v {
			if rs.Annotations == nil {
				rs.Annotations = map[string]string{}
			}
			rs.Annotations[k] = v
		}
	}
}

func (w *parts) annotateSizes(rs *appsv1.ReplicaSet) {
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	rs.Annotations[desiredAnnotation] = strconv.Itoa(int(*w.d.Spec.Replicas))
	rs.Annotations[maxAnnotation] = strconv.Itoa(int(*w.d.Spec.Replicas + surge(w.d)))
}

// newSet of the current template, as large as the surge allows.
func (w *parts) newSet(revision string) *appsv1.ReplicaSet {
	t := w.d.Spec.Template.DeepCopy()
	hash := hashOf(t, w.d.Status.CollisionCount)
	t.Labels = with(t.Labels, hashLabel, hash)
	sel := w.d.Spec.Selector.DeepCopy()
	sel.MatchLabels = with(sel.MatchLabels, hashLabel, hash)
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: owned.NamePrefix(w.d.Name) + hash, Namespace: w.d.Namespace, Labels: t.Labels,
			OwnerReferences: []metav1.OwnerReference{owned.Ref(w.d, gvk)},
		},
		Spec: appsv1.ReplicaSetSpec{MinReadySeconds: w.d.Spec.MinReadySeconds, Selector: sel, Template: *t},
	}
	want := *w.d.Spec.Replicas
	if w.d.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		want = max(0, min(want, want+surge(w.d)-total(w.sets)))
	}
	rs.Spec.Replicas = &want
	w.copyAnnotations(rs)
	remember(rs, revision)
	w.annotateSizes(rs)
	return rs
}

func with(m map[string]string, key, value string) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

// hashOf a template names its set. Should a set of that name have another
// template, the count of collisions makes another name.
func hashOf(t *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	_ = json.NewEncoder(h).Encode(t)
	if collisions != nil {
		fmt.Fprintf(h, "%08x", *collisions)
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

func revisionOf(rs *appsv1.ReplicaSet) int64 {
	n, _ := strconv.ParseInt(rs.Annotations[revisionAnnotation], 10, 64)
	return n
}

func number(rs *appsv1.ReplicaSet, annotation string) (int32, bool) {
	n, err := strconv.ParseInt(rs.Annotations[annotation], 10, 32)
	return int32(n), err == nil && n >= 0
}

// changed returns the private copy of a set that the plan holds already, or makes one.
func (w *parts) changed(rs *appsv1.ReplicaSet) *appsv1.ReplicaSet {
	for _, c := range w.p.update {
		if c.UID == rs.UID {
			return c
		}
	}
	return rs.DeepCopy()
}

// keep a copy in the plan if it differs from the set.
func (w *parts) keep(rs, c *appsv1.ReplicaSet) {
	for _, have := range w.p.update {
		if have == c {
			return
		}
	}
	if !maps.Equal(rs.Annotations, c.Annotations) || *rs.Spec.Replicas != *c.Spec.Replicas || rs.Spec.MinReadySeconds != c.Spec.MinReadySeconds {
		w.p.update = append(w.p.update, c)
	}
}
