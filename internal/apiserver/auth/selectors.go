package auth

import (
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// Selectors in authorisation (KEP-4601). Attributes hold them as text; they are
// taken apart for those who ask: webhooks, and expressions. A selector only
// narrows, so a requirement that nobody understands is left out: what is asked
// then is more than what is wanted, never less.

// Fields are the requirements of the field selector; those of a bad one are none.
func (a *Attributes) Fields() []metav1.FieldSelectorRequirement {
	if a.FieldSelector == "" {
		return nil
	}
	sel, err := fields.ParseSelector(a.FieldSelector)
	if err != nil {
		return nil
	}
	var all []metav1.FieldSelectorRequirement
	for _, q := range sel.Requirements() {
		r := metav1.FieldSelectorRequirement{Key: q.Field, Values: []string{q.Value}}
		switch q.Operator {
		case selection.Equals, selection.DoubleEquals, selection.In:
			r.Operator = metav1.FieldSelectorOpIn
		case selection.NotEquals, selection.NotIn:
			r.Operator = metav1.FieldSelectorOpNotIn
		default:
			continue
		}
		all = append(all, r)
	}
	return all
}

// Labels are the requirements of the label selector; those of a bad one are none.
func (a *Attributes) Labels() []metav1.LabelSelectorRequirement {
	if a.LabelSelector == "" {
		return nil
	}
	sel, err := labels.Parse(a.LabelSelector)
	if err != nil {
		return nil
	}
	parsed, _ := sel.Requirements()
	var all []metav1.LabelSelectorRequirement
	for _, q := range parsed {
		r := metav1.LabelSelectorRequirement{Key: q.Key(), Values: q.ValuesUnsorted()}
		if len(r.Values) == 0 {
			r.Values = nil
		}
		switch q.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			r.Operator = metav1.LabelSelectorOpIn
		case selection.NotEquals, selection.NotIn:
			r.Operator = metav1.LabelSelectorOpNotIn
		case selection.Exists:
			r.Operator = metav1.LabelSelectorOpExists
		case selection.DoesNotExist:
			r.Operator = metav1.LabelSelectorOpDoesNotExist
		default:
			continue
		}
		all = append(all, r)
	}
	return all
}

// FieldText is a field selector as text.
func FieldText(all fields.Requirements) string {
	terms := make([]string, len(all))
	for i, q := range all {
		op := "="
		if q.Operator == selection.NotEquals {
			op = "!="
		}
		terms[i] = q.Field + op + fields.EscapeValue(q.Value)
	}
	return strings.Join(terms, ",")
}

// LabelText is a label selector as text.
func LabelText(all labels.Requirements) string {
	terms := make([]string, len(all))
	for i := range all {
		terms[i] = all[i].String()
	}
	return strings.Join(terms, ",")
}

// reviewedFields is the field selector of a review as text; whole says that all of
// it had to be left out, part that some had.
func reviewedFields(f *authorizationv1.FieldSelectorAttributes) (text string, whole, part bool) {
	if f == nil {
		return "", false, false
	}
	if len(f.Requirements) == 0 {
		_, err := fields.ParseSelector(f.RawSelector)
		if err != nil {
			return "", true, false
		}
		return f.RawSelector, false, false
	}
	var terms []string
	for _, q := range f.Requirements {
		if len(q.Values) != 1 {
			continue
		}
		switch q.Operator {
		case metav1.FieldSelectorOpIn:
			terms = append(terms, q.Key+"="+fields.EscapeValue(q.Values[0]))
		case metav1.FieldSelectorOpNotIn:
			terms = append(terms, q.Key+"!="+fields.EscapeValue(q.Values[0]))
		}
	}
	return strings.Join(terms, ","), len(terms) == 0, len(terms) > 0 && len(terms) < len(f.Requirements)
}

// reviewedLabels is the same for a label selector.
func reviewedLabels(l *authorizationv1.LabelSelectorAttributes) (text string, whole, part bool) {
	if l == nil {
		return "", false, false
	}
	if len(l.Requirements) == 0 {
		if _, err := labels.Parse(l.RawSelector); err != nil {
			return "", true, false
		}
		return l.RawSelector, false, false
	}
	operators := map[metav1.LabelSelectorOperator]selection.Operator{
		metav1.LabelSelectorOpIn: selection.In, metav1.LabelSelectorOpNotIn: selection.NotIn,
		metav1.LabelSelectorOpExists: selection.Exists, metav1.LabelSelectorOpDoesNotExist: selection.DoesNotExist,
	}
	var terms []string
	for _, q := range l.Requirements {
		if op, ok := operators[q.Operator]; ok {
			if r, err := labels.NewRequirement(q.Key, op, q.Values); err == nil {
				terms = append(terms, r.String())
			}
		}
	}
	return strings.Join(terms, ","), len(terms) == 0, len(terms) > 0 && len(terms) < len(l.Requirements)
}

// notUsed is what a review says of a selector that was left out.
func notUsed(name string, part bool) string {
	if part {
		return "spec.resourceAttributes." + name + " partially ignored due to parse error"
	}
	return "spec.resourceAttributes." + name + " ignored due to parse error"
}
