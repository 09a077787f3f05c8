package flowcontrol

import (
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	api "github.com/proa-dev/proa/internal/api/flowcontrol"
	"github.com/proa-dev/proa/test/controllertest"
)

func TestKept(t *testing.T) {
	note := func(v string) map[string]string {
		return map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: v}
	}
	for what, c := range map[string]struct {
		meta metav1.ObjectMeta
		want bool
	}{
		"mandatory, whatever it says": {metav1.ObjectMeta{Name: "exempt", Annotations: note("false")}, true},
		"annotated":                   {metav1.ObjectMeta{Name: "system", Generation: 4, Annotations: note("true")}, true},
		"given up":                    {metav1.ObjectMeta{Name: "system", Annotations: note("false")}, false},
		"nobody touched it":           {metav1.ObjectMeta{Name: "system", Generation: 1}, true},
		"somebody changed it":         {metav1.ObjectMeta{Name: "system", Generation: 2}, false},
	} {
		if got := kept(&c.meta); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

func TestConverges(t *testing.T) {
	c := controllertest.New(t, 5)
	c.Run(New(c.Informers, controllertest.Log()))
	condition := func(name string) string {
		for _, cond := range controllertest.Get[*flowcontrolv1.FlowSchema](c, "", name).Status.Conditions {
			return cond.Reason
		}
		return ""
	}
	c.Until("all there", func() bool {
		return len(controllertest.List[*flowcontrolv1.FlowSchema](c)) == len(api.Schemas()) &&
			len(controllertest.List[*flowcontrolv1.PriorityLevelConfiguration](c)) == len(api.Levels()) && condition("global-default") == "Found"
	})
	controllertest.Change(c, "", "catch-all", "", func(l *flowcontrolv1.PriorityLevelConfiguration) {
		l.Spec.Limited.NominalConcurrencyShares = ptr.To[int32](500)
	})
	c.Until("the mandatory level is as it was", func() bool {
		return *controllertest.Get[*flowcontrolv1.PriorityLevelConfiguration](c, "", "catch-all").Spec.Limited.NominalConcurrencyShares == 5
	})
	mine := api.Schemas()[3]
	mine.Name, mine.Annotations, mine.Spec.PriorityLevelConfiguration.Name = "mine", nil, "nowhere"
	controllertest.Create(c, mine)
	c.Until("the schema dangles", func() bool { return condition("mine") == "NotFound" })
	level := api.Levels()[2]
	level.Name, level.Annotations = "nowhere", nil
	controllertest.Create(c, level)
	c.Until("the schema has its level", func() bool { return condition("mine") == "Found" })
}
