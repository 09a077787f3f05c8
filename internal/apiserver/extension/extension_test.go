package extension

import (
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
)

const crontabs = `
metadata: {name: crontabs.stable.example.com, uid: u}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, listKind: CronTabList, shortNames: [ct]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns: [{name: Replicas, type: integer, jsonPath: .spec.replicas}]
    selectableFields: [{jsonPath: .spec.cronSpec}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [cronSpec]
            x-kubernetes-validations: [{rule: "self.replicas <= 10", message: too many}]
            properties:
              cronSpec: {type: string}
              image: {type: string, default: nginx}
              replicas: {type: integer, default: 1}
          status: {type: object, properties: {replicas: {type: integer}}}
  - name: v1beta1
    served: true
    storage: false
    deprecated: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
status: {acceptedNames: {plural: crontabs, singular: crontab, kind: CronTab, listKind: CronTabList, shortNames: [ct]}}
`

func define(t *testing.T, text string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	d := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict([]byte(text), d); err != nil {
		t.Fatal(err)
	}
	return d
}

func kindOf(t *testing.T) *api.Kind {
	t.Helper()
	c, err := newCustom(define(t, crontabs), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.kind
}

func decode(t *testing.T, served api.Served, text string, s wire.Strictness) (*unstructured.Unstructured, []string, error) {
	t.Helper()
	obj, warnings, err := wire.Decode(wire.YAML, []byte(text), served, s)
	u, _ := obj.(*unstructured.Unstructured)
	return u, warnings, err
}

const good = `{apiVersion: stable.example.com/v1, kind: CronTab, metadata: {name: a, namespace: x}, spec: {cronSpec: "* *", odd: 1}}`

func TestBodiesArePrunedAndDefaulted(t *testing.T) {
	k := kindOf(t)
	u, warnings, err := decode(t, api.Served{Kind: k}, good, wire.Warn)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || warnings[0] != `unknown field "spec.odd"` {
		t.Errorf("warnings %q", warnings)
	}
	spec := u.Object["spec"].(map[string]any)
	if spec["image"] != "nginx" || spec["replicas"] != int64(1) || spec["odd"] != nil {
		t.Errorf("spec is %v", spec)
	}
	if _, _, err := decode(t, api.Served{Kind: k}, good, wire.Strict); err == nil || !strings.Contains(err.Error(), `strict decoding error: unknown field "spec.odd"`) {
		t.Errorf("strict: %v", err)
	}
}

func TestWritesWorkOnTheirVersion(t *testing.T) {
	k := kindOf(t)
	u, _, err := decode(t, api.Served{Kind: k, Shape: &k.Shapes[0]}, strings.Replace(good, "/v1,", "/v1beta1,", 1), wire.Warn)
	if err != nil {
		t.Fatal(err)
	}
	spec := u.Object["spec"].(map[string]any)
	if u.GetAPIVersion() != "stable.example.com/v1beta1" || spec["image"] != nil || spec["odd"] != int64(1) {
		t.Errorf("works on %v", u.Object)
	}
	out, err := k.Convert(u, k.GroupVersionKind)
	if err != nil {
		t.Fatal(err)
	}
	k.Default(out)
	u = out.(*unstructured.Unstructured)
	spec = u.Object["spec"].(map[string]any)
	if u.GetAPIVersion() != "stable.example.com/v1" || spec["image"] != "nginx" || spec["odd"] != nil {
		t.Errorf("stored as %v", u.Object)
	}
	if k.Shapes[0].Deprecated != "stable.example.com/v1beta1 CronTab is deprecated; use stable.example.com/v1 CronTab" {
		t.Errorf("deprecation: %q", k.Shapes[0].Deprecated)
	}
	old := u.DeepCopy()
	old.SetAPIVersion("stable.example.com/v0")
	if _, err := k.Convert(old, k.GroupVersionKind); err == nil || !strings.Contains(err.Error(), "request to convert CR from an invalid group/version: stable.example.com/v0") {
		t.Errorf("from nowhere: %v", err)
	}
}

func TestVersionsHaveTheirOwn(t *testing.T) {
	k := kindOf(t)
	beta := api.Served{Kind: k, Shape: &k.Shapes[0]}
	main := api.Served{Kind: k}
	if len(main.Hub().Subresources) != 2 || beta.Subresource("status") != nil || main.Subresource("scale") == nil {
		t.Error("subresources are not those of the version")
	}
	if beta.Hub().Fields != nil || main.Hub().Fields == nil || k.Indexes["spec.cronSpec"] == nil || beta.Hub().Indexes != nil {
		t.Error("selectable fields are not those of the version")
	}
	if main.Hub().Columns[1].Name != "Replicas" || beta.Hub().Columns[1].Name != "Age" {
		t.Error("columns are not those of the version")
	}
}

func TestRulesOfASchema(t *testing.T) {
	k := kindOf(t)
	for name, c := range map[string]struct{ body, want string }{
		"good":     {good, ""},
		"CEL":      {strings.Replace(good, "odd: 1", "replicas: 11", 1), "spec: Invalid value: too many"},
		"required": {strings.Replace(good, `cronSpec: "* *"`, "image: x", 1), "spec.cronSpec: Required value"},
		"type":     {strings.Replace(good, `"* *"`, "5", 1), "spec.cronSpec: Invalid value"},
		"scale":    {strings.Replace(good, "odd: 1", "replicas: -1", 1), "should be a non-negative integer"},
	} {
		u, _, err := decode(t, api.Served{Kind: k}, c.body, wire.Ignore)
		if err != nil {
			t.Fatal(err)
		}
		all := k.Validate(u, nil, "")
		text := ""
		if len(all) > 0 {
			text = all.ToAggregate().Error()
		}
		if c.want == "" && text != "" || !strings.Contains(text, c.want) {
			t.Errorf("%s: %q, want %q", name, text, c.want)
		}
	}
}

func TestRatchetingLeavesOldFaultsAlone(t *testing.T) {
	k := kindOf(t)
	old, _, _ := decode(t, api.Served{Kind: k}, strings.Replace(good, "odd: 1", "replicas: 11", 1), wire.Ignore)
	now := old.DeepCopy()
	now.SetLabels(map[string]string{"a": "b"})
	if all := k.Validate(now, old, ""); len(all) > 0 {
		t.Errorf("an unchanged fault is refused: %v", all)
	}
	now.Object["spec"].(map[string]any)["replicas"] = int64(12)
	if all := k.Validate(now, old, ""); len(all) != 1 {
		t.Errorf("a changed fault: %v", all)
	}
}

func TestStatusAndGeneration(t *testing.T) {
	k := kindOf(t)
	u, _, _ := decode(t, api.Served{Kind: k}, good, wire.Ignore)
	u.Object["status"] = map[string]any{"replicas": int64(7)}
	k.Reset(u, nil, "")
	if u.Object["status"] != nil || u.GetGeneration() != 1 {
		t.Errorf("created as %v", u.Object)
	}
	changed := u.DeepCopy()
	changed.Object["spec"].(map[string]any)["image"] = "other"
	changed.Object["status"] = map[string]any{"replicas": int64(7)}
	sub := changed.DeepCopy()
	k.Reset(changed, u, "")
	if changed.Object["status"] != nil || changed.GetGeneration() != 2 {
		t.Errorf("updated to %v", changed.Object)
	}
	k.Reset(sub, u, "status")
	if sub.Object["status"] == nil || sub.GetGeneration() != 1 || sub.Object["spec"].(map[string]any)["image"] != "nginx" {
		t.Errorf("status updated to %v", sub.Object)
	}
	if row := k.Row(u); row[1] != int64(1) {
		t.Errorf("row %v", row)
	}
	if set := k.Fields(u); set["spec.cronSpec"] != "* *" {
		t.Errorf("fields %v", set)
	}
}

func TestNamesAreGivenOnce(t *testing.T) {
	first := define(t, crontabs)
	other := define(t, strings.ReplaceAll(crontabs, "crontabs.stable", "tabs.stable"))
	other.Spec.Names.Plural = "tabs"
	other.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
	decide(other, []*apiextensionsv1.CustomResourceDefinition{first, other})
	for _, c := range other.Status.Conditions {
		if c.Type == apiextensionsv1.NamesAccepted && (c.Status != apiextensionsv1.ConditionFalse || !strings.Contains(c.Message, `is already in use`)) {
			t.Errorf("names: %+v", c)
		}
		if c.Type == apiextensionsv1.Established && c.Status != apiextensionsv1.ConditionFalse {
			t.Errorf("established: %+v", c)
		}
	}
	first.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
	decide(first, []*apiextensionsv1.CustomResourceDefinition{first})
	if n := first.Status.AcceptedNames; n.Plural != "crontabs" || n.ShortNames[0] != "ct" || len(first.Status.Conditions) != 2 {
		t.Errorf("status %+v", first.Status)
	}
}
