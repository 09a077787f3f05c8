package report

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/proa-dev/proa/test/conformance/suite"
)

// Folder writes the results of a run into a folder: passed.txt, failed.txt,
// skipped.txt and notrun.txt with a name a line, failures.txt with the reasons,
// times.txt with the slowest first, summary.txt. Ginkgo writes junit.xml and
// report.json there itself.
func Folder(dir string, tests []*suite.Test) error {
	sorted := slices.Clone(tests)
	slices.SortFunc(sorted, func(a, b *suite.Test) int { return cmp.Compare(a.Name, b.Name) })
	files := map[string]*strings.Builder{}
	for _, name := range []string{"passed", "failed", "skipped", "notrun", "failures", "times", "summary"} {
		files[name] = &strings.Builder{}
	}
	for _, t := range sorted {
		fmt.Fprintln(files[strings.ReplaceAll(string(t.State), " ", "")], t.Name)
		if t.State == suite.Failed || t.State == suite.Skipped {
			fmt.Fprintf(files["failures"], "== %s\n%s", t.Name, indent(t.Reason, 30))
		}
	}
	slices.SortStableFunc(sorted, func(a, b *suite.Test) int { return cmp.Compare(b.Took, a.Took) })
	for _, t := range sorted {
		if t.State != suite.NotRun {
			fmt.Fprintf(files["times"], "%8.1f %s\n", t.Took.Seconds(), t.Name)
		}
	}
	Summary(files["summary"], tests)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name+".txt"), []byte(text.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
