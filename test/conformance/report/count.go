// Package report says how a run of the conformance suite ended: on the terminal,
// in a folder of results, and as the page docs/conformance.md.
package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/proa-dev/proa/test/conformance/suite"
)

// Count of tests by how they ended.
type Count struct {
	Name                            string
	Passed, Failed, Skipped, NotRun int
}

// All tests that were counted.
func (c *Count) All() int { return c.Passed + c.Failed + c.Skipped + c.NotRun }

func (c *Count) add(t *suite.Test) {
	switch t.State {
	case suite.Passed:
		c.Passed++
	case suite.Failed:
		c.Failed++
	case suite.Skipped:
		c.Skipped++
	case suite.NotRun:
		c.NotRun++
	}
}

// Counts of each sig by name, and of all.
func Counts(tests []*suite.Test) (sigs []*Count, all *Count) {
	by := map[string]*Count{}
	all = &Count{Name: "all"}
	for _, t := range tests {
		if by[t.Sig()] == nil {
			by[t.Sig()] = &Count{Name: t.Sig()}
			sigs = append(sigs, by[t.Sig()])
		}
		by[t.Sig()].add(t)
		all.add(t)
	}
	slices.SortFunc(sigs, func(a, b *Count) int { return cmp.Compare(a.Name, b.Name) })
	return sigs, all
}

// Line says that a test has ended, or was interrupted.
func Line(w io.Writer, t *suite.Test) {
	word := map[suite.State]string{suite.Passed: "PASS", suite.Failed: "FAIL", suite.Skipped: "SKIP", suite.NotRun: "STOP"}[t.State]
	fmt.Fprintf(w, "%s %7.1fs  %s\n", word, t.Took.Seconds(), t.Name)
}

// reasonLines of a failure are shown on the terminal; the folder has more.
const reasonLines = 4

// Summary of a run: the failures with their reasons, counts, and in the last line
// "N passed, N failed, N of M".
func Summary(w io.Writer, tests []*suite.Test) {
	for _, t := range tests {
		if t.State == suite.Failed || t.State == suite.Skipped {
			fmt.Fprintf(w, "\n%s %s\n%s", strings.ToUpper(string(t.State)), t.Name, indent(t.Reason, reasonLines))
		}
	}
	sigs, all := Counts(tests)
	fmt.Fprintln(w)
	for _, c := range sigs {
		fmt.Fprintf(w, "%-22s %4d passed %4d failed  of %d%s\n", c.Name, c.Passed, c.Failed, c.All(), c.rest())
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d of %d%s\n", all.Passed, all.Failed, all.Passed, all.All(), all.rest())
}

// rest is what is neither passed nor failed.
func (c *Count) rest() string {
	s := ""
	if c.Skipped > 0 {
		s += fmt.Sprintf(", %d skipped", c.Skipped)
	}
	if c.NotRun > 0 {
		s += fmt.Sprintf(", %d not run", c.NotRun)
	}
	return s
}

// indent the first lines of a text; of no text it says where to look.
func indent(text string, lines int) string {
	if strings.TrimSpace(text) == "" {
		text = "(no reason was reported: see output.log)"
	}
	var b strings.Builder
	n := 0
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		if n++; n > lines {
			break
		}
		if line = strings.TrimRight(line, "\n"); len(line) > 300 {
			line = line[:300] + "…"
		}
		b.WriteString("    " + line + "\n")
	}
	return b.String()
}
