package extension

import (
	"encoding/json"
	"fmt"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/apiextensions"
	"github.com/proa-dev/proa/internal/api/wire"
)

// fuzzed is a kind with a schema, nil when its definition is refused.
func fuzzed(t *testing.T, schema string) *api.Kind {
	of := apiextensions.Kinds()[0]
	text := fmt.Sprintf(`{"metadata":{"name":"things.example.com"},"spec":{"group":"example.com","scope":"Namespaced","names":{"plural":"things","kind":"Thing"},
		"versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{},"scale":{"specReplicasPath":".spec.n","statusReplicasPath":".status.n"}},
		"additionalPrinterColumns":[{"name":"N","type":"integer","jsonPath":".spec.n"}],"schema":{"openAPIV3Schema":%s}}]}}`, schema)
	obj, _, err := wire.Decode(wire.JSON, []byte(text), api.Served{Kind: of}, wire.Ignore)
	if err != nil {
		return nil
	}
	of.Reset(obj, nil, "")
	if len(of.Validate(obj, nil, "")) > 0 {
		return nil
	}
	d := obj.(*apiextensionsv1.CustomResourceDefinition)
	decide(d, []*apiextensionsv1.CustomResourceDefinition{d})
	c, err := newCustom(d, nil)
	if err != nil {
		t.Fatalf("a definition that is good cannot be served: %v\n%s", err, schema)
	}
	for _, v := range c.served {
		if def, err := definition(v); err != nil || !json.Valid(def.V2) || !json.Valid(def.V3) {
			t.Fatalf("its schema cannot be published: %v\n%s", err, schema)
		}
	}
	c.types()
	return c.kind
}

// use a kind as a server does.
func use(t *testing.T, k *api.Kind, text string) {
	obj, _, err := wire.Decode(wire.JSON, []byte(text), api.Served{Kind: k}, wire.Warn)
	if err != nil {
		return
	}
	u := obj.(*unstructured.Unstructured)
	k.Row(u)
	k.Reset(u, nil, "")
	bad := len(k.Validate(u, nil, "")) > 0
	body, err := wire.EncodeStorage(k, u.DeepCopy())
	if err != nil {
		t.Fatalf("it cannot be stored: %v\n%s", err, text)
	}
	again, err := wire.DecodeStorage(k, body, 7)
	if err != nil {
		t.Fatalf("it cannot be read again: %v\n%s", err, body)
	}
	for _, sub := range []string{"", "status"} {
		now := again.DeepCopyObject().(api.Object)
		k.Reset(now, again, sub)
		if all := k.Validate(now, again, sub); len(all) > 0 && !bad && sub == "" {
			t.Fatalf("good, but not when it is written unchanged: %v\n%s", all, body)
		}
	}
	if sub := k.Subresource("scale"); sub != nil && !bad {
		if _, err := sub.Get(again); err != nil {
			t.Fatalf("good, but it has no scale: %v\n%s", err, body)
		}
	}
}

// FuzzSchema serves a kind with any schema, and an object of it.
func FuzzSchema(f *testing.F) {
	for _, schema := range []string{
		`{"type":"object"}`,
		`{"type":"object","x-kubernetes-preserve-unknown-fields":true}`,
		`{"type":"object","required":["spec"],"properties":{"spec":{"type":"object","properties":{"n":{"type":"integer","minimum":0,"maximum":5,"default":1}}},"status":{"type":"object","properties":{"n":{"type":"integer"}}}}}`,
		`{"type":"object","properties":{"spec":{"type":"object","additionalProperties":{"type":"array","maxItems":3,"items":{"type":"string","pattern":"^a+$","enum":["a","aa"],"nullable":true}}}}}`,
		`{"type":"object","properties":{"list":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"items":{"type":"object","required":["k"],"properties":{"k":{"type":"string","default":"x"},"v":{"x-kubernetes-int-or-string":true}}}}}}`,
		`{"type":"object","properties":{"tpl":{"type":"object","x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true},"set":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}}}}`,
		`{"type":"object","properties":{"spec":{"type":"object","oneOf":[{"required":["a"]},{"required":["b"]}],"not":{"required":["c"]},"properties":{"a":{"type":"number","multipleOf":0.5,"exclusiveMinimum":true,"minimum":1},"b":{"type":"string","format":"date-time","maxLength":30},"c":{"type":"boolean"}}}}}`,
		`{"type":"object","properties":{"metadata":{"type":"object","properties":{"name":{"type":"string","maxLength":5}}},"spec":{"type":"object","x-kubernetes-map-type":"atomic","maxProperties":2,"x-kubernetes-validations":[{"rule":"self.a <= oldSelf.a || !has(self.b)","messageExpression":"'a is ' + string(self.a)","reason":"FieldValueForbidden","fieldPath":".a","optionalOldSelf":false}],"properties":{"a":{"type":"integer"},"b":{"type":"string"}}}}}`,
	} {
		for _, obj := range []string{
			`{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a"},"spec":{"n":3,"a":1.5,"b":"2020-01-01T00:00:00Z"},"list":[{"k":"a","v":1},{"k":"b","v":"x"}],"set":["a","b"],"status":{"n":1}}`,
			`{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a","labels":null},"spec":{"x":["a",null]},"tpl":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","odd":1}},"list":[{}]}`,
		} {
			f.Add(schema, obj)
		}
	}
	f.Fuzz(func(t *testing.T, schema, obj string) {
		if !json.Valid([]byte(schema)) {
			return
		}
		if k := fuzzed(t, schema); k != nil {
			use(t, k, obj)
		}
	})
}

// FuzzRule serves a kind with any rule, and holds objects to it.
func FuzzRule(f *testing.F) {
	for _, rule := range []string{
		"self.n < 10", "self.list.all(x, x.k.startsWith('a'))", "!has(self.s) || self.s.matches('^[a-z]+$')", "oldSelf.n == self.n",
		"self.list.map(x, x.k).isSorted()", "self.m.exists(k, self.m[k] == 'v')", "quantity(self.s).isGreaterThan(quantity('1Ki'))",
		"isURL(self.s) && url(self.s).getHost() == 'x'", "self.list.exists_one(x, x.k == self.s) ? true : self.n / 0 == 1",
		"self.s.split(',').map(x, int(x)).sum() > 3", "ip(self.s).family() == 4 || cidr(self.s).containsIP('10.0.0.1')",
		"self.list.filter(x, has(x.v)).size() + self.m.size() <= self.n", "duration(self.s) < duration('1h')", "timestamp(self.s).getFullYear() > 2000",
		"self.m.transformList(k, v, k + v).join(',').contains('a')", "cel.bind(x, self.n, x * x > 4)", "format.dns1123Label().validate(self.s).hasValue()",
		"self.s.find('[a-z]+').size() > 0 && sets.contains([1, 2], [self.n])", "optional.ofNonZeroValue(self.n).orValue(3) == 3", "semver(self.s).isLessThan(semver('1.2.3'))",
	} {
		f.Add(rule, "'bad ' + self.s", 4, "abc", `[{"k":"a"},{"k":"b","v":1}]`)
	}
	f.Add("self.n > 1", "", -1, "10.0.0.0/8", `[]`)
	f.Fuzz(func(t *testing.T, rule, message string, n int, s, list string) {
		rules := map[string]string{"rule": rule}
		if message != "" {
			rules["messageExpression"] = message
		}
		text, err := json.Marshal(rules)
		if err != nil || !json.Valid([]byte(list)) {
			return
		}
		k := fuzzed(t, `{"type":"object","properties":{"spec":{"type":"object","x-kubernetes-validations":[`+string(text)+`],"properties":{
			"n":{"type":"integer"},"s":{"type":"string","maxLength":100},"m":{"type":"object","maxProperties":10,"additionalProperties":{"type":"string","maxLength":20}},
			"list":{"type":"array","maxItems":10,"items":{"type":"object","properties":{"k":{"type":"string","maxLength":20},"v":{"type":"integer"}}}}}}}}`)
		if k == nil {
			return
		}
		spec, err := json.Marshal(map[string]any{"n": n, "s": s, "m": map[string]string{s: "v"}, "list": json.RawMessage(list)})
		if err == nil {
			use(t, k, `{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a"},"spec":`+string(spec)+`}`)
		}
	})
}
