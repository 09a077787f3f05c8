package patch

import (
	"encoding/json"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

func pod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Labels: map[string]string{"a": `quo"ted\ {`, "b": "]}"}, Annotations: map[string]string{"x": "<y>"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m", FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:x":{}}`)}}},
		},
		Spec:   corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i"}, {Name: "d", Image: "j"}}},
		Status: corev1.PodStatus{Phase: "Running", Conditions: []corev1.PodCondition{{Type: "Ready", Status: "True"}}},
	}
}

// A patch of the part it touches comes to the same as one of the whole.
func TestPartIsWhole(t *testing.T) {
	doc, err := json.Marshal(pod())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		typ  types.PatchType
		data string
	}{
		{types.MergePatchType, `{"metadata":{"labels":{"a":null,"c":"d"}}}`},
		{types.MergePatchType, `{"status":null}`},
		{types.MergePatchType, `{"metadata":{"managedFields":null},"spec":{"nodeName":null}}`},
		{types.StrategicMergePatchType, `{"spec":{"containers":[{"name":"c","image":"k"}]}}`},
		{types.StrategicMergePatchType, `{"spec":{"containers":[{"name":"c","$patch":"delete"}]},"metadata":{"labels":{"b":"e"}}}`},
		{types.StrategicMergePatchType, `{"status":{"conditions":[{"type":"X","status":"False"}]}}`},
	} {
		p, err := Parse(c.typ, []byte(c.data))
		if err != nil {
			t.Fatal(err)
		}
		whole := &corev1.Pod{}
		out, err := p.Apply(doc, pod(), schema.GroupKind{}, "p")
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, whole); err != nil {
			t.Fatal(err)
		}
		part, fields, without, ok := p.Part(doc)
		if !ok {
			t.Fatalf("%s: no part", c.data)
		}
		if out, err = p.Apply(part, pod(), schema.GroupKind{}, "p"); err != nil {
			t.Fatal(err)
		}
		got := pod()
		Clear(got, fields)
		if err := json.Unmarshal(out, got); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if without {
			got.ManagedFields = pod().ManagedFields
		}
		if !reflect.DeepEqual(got, whole) {
			a, _ := json.Marshal(got)
			b, _ := json.Marshal(whole)
			t.Errorf("%s:\n got %s\nwant %s", c.data, a, b)
		}
	}
	for _, data := range []string{`{}`, `{"$patch":"replace","spec":{}}`, `{"kind":"Pod"}`} {
		p, _ := Parse(types.StrategicMergePatchType, []byte(data))
		if _, _, _, ok := p.Part(doc); ok {
			t.Errorf("%s was taken for a patch of a part", data)
		}
	}
}
