package scheduler

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// which says which pods count.
type which struct {
	namespaces []string        // sorted
	nsSelector labels.Selector // nil = none, besides namespaces
	selector   labels.Selector
	spreading  bool // pods that are being deleted do not count
}

// term says which pods count and what they are counted by (a topology key). Pods
// that say the same share one term, and the world keeps the counts of each term up
// to date, for as long as pods refer to it.
type term struct {
	id  string
	key string  // topology key
	of  []which // a pod has to match all

	counted bool
	total   int
	nodes   []int32 // pods that match, by slot of the node

	// pods that have this term, by what they have it as: how many …
	held [4]int
	// … and by slot of the node, weights added up for the preferred ones
	holders [4][]int64
}

// What a pod holds a term as.
const (
	holdsAnti   = iota // required anti-affinity
	holdsAffine        // required affinity: counts as preferred with weight 1 for others
	holdsPreferAffine
	holdsPreferAnti
)

// terms shares terms and knows the labels of namespaces.
type terms struct {
	byID       map[string]*term
	order      []*term // as they came: what is looked at in turn must not depend on chance
	namespaces map[string]labels.Set
	epoch      uint64 // moves when a term comes, goes, begins to be counted, or matches others
	heldEpoch  uint64 // moves when a term is held for the first time or no more
	perPod     bool   // some selector looks at a label that differs between pods of one owner
}

func newTerms() *terms {
	return &terms{byID: map[string]*term{}, namespaces: map[string]labels.Set{}, epoch: 1}
}

func spreadOver(namespace string, sel labels.Selector) []which {
	if sel.Empty() {
		sel = labels.Nothing() // as upstream: an empty selector counts no pods
	}
	return []which{{namespaces: []string{namespace}, selector: sel, spreading: true}}
}

func (t *terms) get(key string, of []which) *term {
	var id strings.Builder
	id.WriteString(key)
	for _, w := range of {
		id.WriteString("|" + strings.Join(w.namespaces, ",") + "|")
		if w.spreading {
			id.WriteString("!")
		}
		if w.nsSelector != nil {
			id.WriteString("{" + w.nsSelector.String() + "}")
		}
		id.WriteString("|" + w.selector.String())
		if w.selector.Empty() {
			id.WriteString("*")
		}
	}
	if have, ok := t.byID[id.String()]; ok {
		return have
	}
	n := &term{id: id.String(), key: key, of: of}
	for i := range of {
		all, _ := of[i].selector.Requirements()
		for j := range all {
			t.perPod = t.perPod || perPod(all[j].Key())
		}
	}
	t.byID[n.id] = n
	t.order = append(t.order, n)
	t.epoch++
	return n
}

func (t *terms) of(obj *corev1.Pod, a *corev1.PodAffinityTerm) *term {
	sel, err := metav1.LabelSelectorAsSelector(a.LabelSelector)
	if err != nil {
		sel = labels.Nothing()
	}
	add := func(keys []string, op string) {
		for _, k := range keys {
			v, ok := obj.Labels[k]
			if !ok || a.LabelSelector == nil || merged(a.LabelSelector, k, op) {
				continue
			}
			if r, err := labels.NewRequirement(k, selection.Operator(strings.ToLower(op)), []string{v}); err == nil {
				sel = sel.Add(*r)
			}
		}
	}
	add(a.MatchLabelKeys, "In")
	add(a.MismatchLabelKeys, "NotIn")
	w := which{namespaces: slices.Clone(a.Namespaces), selector: sel}
	if a.NamespaceSelector != nil {
		if w.nsSelector, err = metav1.LabelSelectorAsSelector(a.NamespaceSelector); err != nil {
			w.nsSelector = labels.Nothing()
		}
	}
	if len(w.namespaces) == 0 && a.NamespaceSelector == nil {
		w.namespaces = []string{obj.Namespace}
	}
	slices.Sort(w.namespaces)
	return t.get(a.TopologyKey, []which{w})
}

// merged: the API server writes matchLabelKeys into the selector.
func merged(s *metav1.LabelSelector, key, op string) bool {
	for _, e := range s.MatchExpressions {
		if e.Key == key && string(e.Operator) == op {
			return true
		}
	}
	return false
}

func (t *terms) all(obj *corev1.Pod, list []corev1.PodAffinityTerm) []*term {
	var out []*term
	for i := range list {
		out = append(out, t.of(obj, &list[i]))
	}
	return out
}

// together: each term counts those pods that match all terms.
func (t *terms) together(list []*term) []*term {
	if len(list) < 2 {
		return list
	}
	var of []which
	for _, one := range list {
		of = append(of, one.of...)
	}
	var out []*term
	for _, one := range list {
		out = append(out, t.get(one.key, of))
	}
	return out
}

func (t *terms) weighted(obj *corev1.Pod, list []corev1.WeightedPodAffinityTerm) []weighted {
	var out []weighted
	for i := range list {
		out = append(out, weighted{t.of(obj, &list[i].PodAffinityTerm), int64(list[i].Weight)})
	}
	return out
}

// matches says whether a pod counts.
func (t *terms) matches(m *term, obj *corev1.Pod) bool {
	for i := range m.of {
		w := &m.of[i]
		if w.spreading && obj.DeletionTimestamp != nil || !w.selector.Matches(labels.Set(obj.Labels)) {
			return false
		}
		if !slices.Contains(w.namespaces, obj.Namespace) && (w.nsSelector == nil || !w.nsSelector.Matches(t.namespaces[obj.Namespace])) {
			return false
		}
	}
	return true
}

// counting are the counted terms that pods of a class match.
func (t *terms) counting(c *class) []*term {
	if c.countedEpoch != t.epoch {
		c.counted, c.countedEpoch = c.counted[:0], t.epoch
		for _, m := range t.order {
			if m.counted && t.matches(m, c.sample) {
				c.counted = append(c.counted, m)
			}
		}
	}
	return c.counted
}

// setNamespace keeps the labels that namespace selectors look at. Terms with such
// a selector are counted anew when next asked for. It says whether anything moved.
func (t *terms) setNamespace(name string, set labels.Set) bool {
	if have, ok := t.namespaces[name]; ok && set != nil && sameLabels(have, set) {
		return false
	}
	if set == nil {
		delete(t.namespaces, name)
	} else {
		t.namespaces[name] = set
	}
	moved := false
	for _, m := range t.order {
		for i := range m.of {
			if m.of[i].nsSelector != nil {
				m.counted, moved = false, true
			}
		}
	}
	if moved {
		t.epoch++
		t.heldEpoch++
	}
	return moved
}
