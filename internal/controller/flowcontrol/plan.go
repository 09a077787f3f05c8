package flowcontrol

import (
	"fmt"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api/flowcontrol"
)

// kept says whether the spec of a bootstrap object is the server's to keep: always
// for the mandatory ones; for the others as their annotation says, and without one
// until somebody changed the spec (KEP-1040).
func kept(meta *metav1.ObjectMeta) bool {
	if flowcontrol.Mandatory(meta.Name) {
		return true
	}
	if v, ok := meta.Annotations[flowcontrolv1.AutoUpdateAnnotationKey]; ok {
		return v == "true"
	}
	return meta.Generation <= 1
}

// annotated returns the annotations that the object has to have, nil = it has them.
func annotated(meta *metav1.ObjectMeta, keep bool) map[string]string {
	value := fmt.Sprint(keep)
	if meta.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] == value {
		return nil
	}
	out := map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: value}
	for k, v := range meta.Annotations {
		if k != flowcontrolv1.AutoUpdateAnnotationKey {
			out[k] = v
		}
	}
	return out
}

// correct says what of an object has to be written, have and want being the specs:
// its annotations (nil = they are right) and whether its spec is to be the wanted.
func correct[S any](meta *metav1.ObjectMeta, have, want *S) (notes map[string]string, spec bool) {
	keep := kept(meta)
	return annotated(meta, keep), keep && !equality.Semantic.DeepEqual(have, want)
}

// dangling returns the schema with the condition that says whether its level is
// there, nil = it says so already.
func dangling(f *flowcontrolv1.FlowSchema, there bool, now time.Time) *flowcontrolv1.FlowSchema {
	level := f.Spec.PriorityLevelConfiguration.Name
	c := flowcontrolv1.FlowSchemaCondition{
		Type: flowcontrolv1.FlowSchemaConditionDangling, Status: flowcontrolv1.ConditionFalse, Reason: "Found", LastTransitionTime: metav1.NewTime(now),
		Message: fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q and it exists", level),
	}
	if !there {
		c.Status, c.Reason = flowcontrolv1.ConditionTrue, "NotFound"
		c.Message = fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q but there is no such object", level)
	}
	for i, have := range f.Status.Conditions {
		if have.Type != c.Type {
			continue
		}
		if have.Status == c.Status && have.Reason == c.Reason && have.Message == c.Message {
			return nil
		}
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		out := f.DeepCopy()
		out.Status.Conditions[i] = c
		return out
	}
	out := f.DeepCopy()
	out.Status.Conditions = append(out.Status.Conditions, c)
	return out
}
