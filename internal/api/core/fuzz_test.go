package core

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// Whatever can be decoded as a pod is defaulted, reset, checked, warned about
// and printed without a panic, as a new pod and as an update.
func FuzzPod(f *testing.F) {
	_, rules := readRules(f, "testdata/pod.txt")
	for i := range rules {
		m := map[string]any{}
		if err := yaml.Unmarshal([]byte(plainPod), &m); err != nil {
			f.Fatal(err)
		}
		for _, line := range append(rules[i].create, rules[i].after...) {
			set(f, m, line)
		}
		raw, _ := json.Marshal(m)
		f.Add(raw)
	}
	k := podKind()
	old := plain(f)
	createPod(old)
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, sub := range []string{"create", "", "status", "ephemeralcontainers", "resize"} {
			p := &corev1.Pod{}
			if json.Unmarshal(raw, p) != nil {
				return
			}
			k.Default(p)
			if sub == "create" {
				k.Reset(p, nil, "")
				if k.Validate(p, nil, "") == nil {
					k.Warn(p, nil)
				}
			} else {
				k.Reset(p, old, sub)
				k.Validate(p, old, sub)
				q := &corev1.Pod{}
				_ = json.Unmarshal(raw, q)
				k.Default(q)
				k.Reset(q, p, sub)
				k.Validate(q, p, sub)
			}
			k.Row(p)
			k.Fields(p)
			k.Grace(p, nil)
		}
	})
}

// A second time, defaults change nothing.
func TestDefaultsAreDoneOnce(t *testing.T) {
	for _, file := range []string{"testdata/pod.txt", "testdata/other.txt"} {
		_, rules := readRules(t, file)
		for i := range rules {
			r := &rules[i]
			k := kindNamed(t, r.kind)
			m := map[string]any{}
			if err := yaml.Unmarshal([]byte(bases[r.kind]), &m); err != nil {
				t.Fatal(err)
			}
			for _, line := range r.create {
				set(t, m, line)
			}
			once := object(t, k, m)
			before, _ := json.Marshal(once)
			if k.Default != nil {
				k.Default(once)
			}
			if after, _ := json.Marshal(once); string(before) != string(after) {
				t.Errorf("%s:\n%s\n%s", r.head, before, after)
			}
		}
	}
}
