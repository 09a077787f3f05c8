package verbs

import (
	"k8s.io/apimachinery/pkg/selection"

	"github.com/proa-dev/proa/internal/cache"
)

// required are the labels that an object has to have with one of some values, whatever
// else the selector says.
func (s Selector) required() (all []cache.Label) {
	if s.Labels == nil {
		return nil
	}
	requirements, _ := s.Labels.Requirements()
	for _, r := range requirements {
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			all = append(all, cache.Label{Key: r.Key(), Values: r.ValuesUnsorted()})
		}
	}
	return all
}

// ascend visits what the selector may pick in key order: by an index of labels, if
// there is one, else everything.
func (s Selector) ascend(from cache.Snapshot, namespace, fromNamespace, fromName string, visit func(*cache.Item) bool) {
	if l, ok := from.(cache.Labelled); ok && l.ByLabels(s.required(), namespace, fromNamespace, fromName, visit) {
		return
	}
	from.Ascend(namespace, fromNamespace, fromName, visit)
}

// oneLabel that an object has to have with one value; "" = the selector asks for none.
func (s Selector) oneLabel() (key, value string) {
	for _, l := range s.required() {
		if len(l.Values) == 1 {
			return l.Key, l.Values[0]
		}
	}
	return "", ""
}
