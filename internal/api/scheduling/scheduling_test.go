package scheduling

import (
	"testing"

	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPriorityClasses(t *testing.T) {
	k := Kinds()[0]
	for _, c := range []struct {
		name  string
		value int32
		want  string
	}{
		{"high", HighestUser, ""},
		{"high", HighestUser + 1, "value: Forbidden: maximum allowed value of a user defined priority is 1000000000"},
		{"system-node-critical", 2000001000, ""},
		{"system-node-critical", 5, "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000"},
		{"system-mine", 5, "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known system priority class"},
	} {
		got := ""
		if errs := k.Validate(&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: c.name}, Value: c.value}, nil, ""); len(errs) > 0 {
			got = errs[0].Error()
		}
		if got != c.want {
			t.Errorf("%s %d: %s", c.name, c.value, got)
		}
	}
	old, now := &schedulingv1.PriorityClass{Value: 1}, &schedulingv1.PriorityClass{Value: 2}
	if errs := k.Validate(now, old, ""); len(errs) != 1 || errs[0].Error() != "value: Forbidden: may not be changed in an update." {
		t.Errorf("%v", errs)
	}
}
