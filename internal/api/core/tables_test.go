package core

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

var ago = regexp.MustCompile(`"@(\w+)"`)

// row is a rule's object as a line of kubectl get -o wide.
func (r *rule) row(t testing.TB) string {
	k := kindNamed(t, r.kind)
	m := map[string]any{}
	if err := yaml.Unmarshal([]byte(bases[r.kind]), &m); err != nil {
		t.Fatal(err)
	}
	for _, line := range r.create {
		set(t, m, ago.ReplaceAllStringFunc(line, func(s string) string {
			d, err := time.ParseDuration(strings.Trim(s, `"@`))
			if err != nil {
				t.Fatal(err)
			}
			return `"` + time.Now().Add(-d).UTC().Format("2006-01-02T15:04:05.000000Z07:00") + `"`
		}))
	}
	cells := k.Row(object(t, k, m))
	if len(cells) != len(k.Columns) {
		t.Fatalf("%s: %d cells in %d columns", r.head, len(cells), len(k.Columns))
	}
	var text []string
	for _, c := range cells {
		text = append(text, fmt.Sprint(c))
	}
	return strings.Join(text, " | ")
}

func TestTables(t *testing.T) {
	const file = "testdata/tables.txt"
	preface, rules := readRules(t, file)
	out := preface
	for i := range rules {
		r := &rules[i]
		got := r.row(t)
		out += "## " + r.head + "\n"
		for _, l := range r.create {
			out += l + "\n"
		}
		out += "> " + got + "\n\n"
		if want := strings.Join(r.wrong, "\n"); !*rewrite && got != want {
			t.Errorf("%s:\n got %s\nwant %s", r.head, got, want)
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(strings.TrimRight(out, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
