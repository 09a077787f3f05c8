package core

import (
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/proa-dev/proa/internal/api"
)

var rewrite = flag.Bool("rewrite", false, "write the expected errors of testdata anew")

// bases are what the rules change.
var bases = map[string]string{
	"Pod":                   plainPod,
	"Service":               "metadata: {name: web, namespace: default}\nspec: {selector: {app: web}, ports: [{port: 80}]}",
	"Endpoints":             "metadata: {name: web, namespace: default}\nsubsets: [{addresses: [{ip: 10.0.0.1}], ports: [{port: 80}]}]",
	"ConfigMap":             "metadata: {name: web, namespace: default}",
	"Secret":                "metadata: {name: web, namespace: default}",
	"Namespace":             "metadata: {name: web}",
	"Node":                  "metadata: {name: web}",
	"Event":                 "metadata: {name: web, namespace: default}\ninvolvedObject: {kind: Pod, name: web, namespace: default}",
	"ReplicationController": "metadata: {name: web, namespace: default}\nspec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: nginx}]}}}",
	"PodTemplate":           "metadata: {name: web, namespace: default}\ntemplate: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: nginx}]}}",
	"LimitRange":            "metadata: {name: web, namespace: default}",
	"ResourceQuota":         "metadata: {name: web, namespace: default}",
	"PersistentVolume":      "metadata: {name: web}\nspec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /x}}",
	"PersistentVolumeClaim": "metadata: {name: web, namespace: default}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}",
	"ServiceAccount":        "metadata: {name: web, namespace: default}",
}

// rule is one case of testdata: changes before the object is created, and, if
// there are any, in an update of it.
type rule struct {
	head          string
	kind, sub     string
	create, after []string
	wrong         []string
}

func readRules(t testing.TB, file string) (preface string, rules []rule) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		switch {
		case strings.HasPrefix(line, "## "):
			r := rule{head: line[3:]}
			name, _, _ := strings.Cut(r.head, ":")
			r.kind, r.sub, _ = strings.Cut(name, "/")
			rules = append(rules, r)
		case len(rules) == 0:
			preface += line + "\n"
		case line == "":
		case strings.HasPrefix(line, "> "):
			r := &rules[len(rules)-1]
			r.wrong = append(r.wrong, line[2:])
		case strings.HasPrefix(line, "-> "):
			r := &rules[len(rules)-1]
			r.after = append(r.after, line[3:])
		default:
			r := &rules[len(rules)-1]
			r.create = append(r.create, line)
		}
	}
	return preface, rules
}

var pathStep = regexp.MustCompile(`[^.\[\]]+|\[\d+\]`)

// set changes a tree of JSON: "spec.containers[0].image = nginx".
func set(t testing.TB, tree map[string]any, line string) {
	t.Helper()
	path, text, ok := strings.Cut(line, " = ")
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); !ok || err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	var put func(at any, steps []string) any
	put = func(at any, steps []string) any {
		if len(steps) == 0 {
			return v
		}
		if strings.HasPrefix(steps[0], "[") {
			i, _ := strconv.Atoi(strings.Trim(steps[0], "[]"))
			list, _ := at.([]any)
			for len(list) <= i {
				list = append(list, nil)
			}
			list[i] = put(list[i], steps[1:])
			return list
		}
		m, _ := at.(map[string]any)
		if m == nil {
			m = map[string]any{}
		}
		if m[steps[0]] = put(m[steps[0]], steps[1:]); m[steps[0]] == nil {
			delete(m, steps[0])
		}
		return m
	}
	put(tree, pathStep.FindAllString(path, -1))
}

func tree(t testing.TB, obj any) map[string]any {
	t.Helper()
	raw, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func object(t testing.TB, k *api.Kind, m map[string]any) api.Object {
	t.Helper()
	raw, _ := json.Marshal(m)
	obj := k.New()
	if err := json.Unmarshal(raw, obj); err != nil {
		t.Fatal(err)
	}
	if k.Default != nil {
		k.Default(obj)
	}
	return obj
}

func kindNamed(t testing.TB, name string) *api.Kind {
	t.Helper()
	for _, k := range Kinds() {
		if k.Kind == name {
			return k
		}
	}
	t.Fatalf("no kind %q", name)
	return nil
}

func (r *rule) run(t testing.TB) []string {
	k := kindNamed(t, r.kind)
	m := map[string]any{}
	if err := yaml.Unmarshal([]byte(bases[r.kind]), &m); err != nil {
		t.Fatal(err)
	}
	for _, line := range r.create {
		set(t, m, line)
	}
	obj := object(t, k, m)
	text := wrong(t, obj, nil, "")
	if r.after != nil {
		if text != "" {
			t.Fatalf("%s: cannot be created: %s", r.head, text)
		}
		obj.SetUID("1")
		obj.SetResourceVersion("1")
		obj.SetCreationTimestamp(metav1.Now())
		m = tree(t, obj)
		for _, line := range r.after {
			set(t, m, line)
		}
		text = wrong(t, object(t, k, m), obj, r.sub)
	}
	if text == "" {
		return nil
	}
	// What a diff shows is not ours to promise.
	var list []string
	for line := range strings.SplitSeq(text, "\n") {
		if len(list) > 0 && !regexp.MustCompile(`^(<nil>|[\w\[\].{}, /-]*): (Required|Invalid|Forbidden|Duplicate|Unsupported|Not found|Too (long|many)|Internal)`).MatchString(line) {
			continue
		}
		list = append(list, line)
	}
	sort.Strings(list)
	return list
}

// warnings of creating the rule's object.
func (r *rule) warnings(t testing.TB) []string {
	k := kindNamed(t, r.kind)
	m := map[string]any{}
	if err := yaml.Unmarshal([]byte(bases[r.kind]), &m); err != nil {
		t.Fatal(err)
	}
	for _, line := range r.create {
		set(t, m, line)
	}
	obj := object(t, k, m)
	if text := wrong(t, obj, nil, ""); text != "" {
		t.Fatalf("%s: %s", r.head, text)
	}
	list := k.Warn(obj, nil)
	sort.Strings(list)
	return list
}

func TestRules(t *testing.T) {
	for _, file := range []string{"testdata/pod.txt", "testdata/other.txt", "testdata/warnings.txt"} {
		preface, rules := readRules(t, file)
		out := preface
		for i := range rules {
			r := &rules[i]
			got := []string(nil)
			if strings.Contains(file, "warnings") {
				got = r.warnings(t)
			} else {
				got = r.run(t)
			}
			out += "## " + r.head + "\n"
			for _, l := range r.create {
				out += l + "\n"
			}
			for _, l := range r.after {
				out += "-> " + l + "\n"
			}
			for _, l := range got {
				out += "> " + l + "\n"
			}
			out += "\n"
			if !*rewrite && strings.Join(got, "\n") != strings.Join(r.wrong, "\n") {
				t.Errorf("%s:\n got\n%s\nwant\n%s", r.head, strings.Join(got, "\n"), strings.Join(r.wrong, "\n"))
			}
		}
		if *rewrite {
			if err := os.WriteFile(file, []byte(strings.TrimRight(out, "\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
