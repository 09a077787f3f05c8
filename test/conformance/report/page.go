package report

import (
	_ "embed" // the page's text
	"os"
	"strings"
	"text/template"

	"github.com/proa-dev/proa/test/conformance/suite"
)

//go:embed page.md.tmpl
var pageText string

// Page is docs/conformance.md: which tests pass, by area.
type Page struct {
	Suite string // version of the suite: v1.36.3
	Proa  string // version of proa
	Nodes int
	Tests []*suite.Test // nil = the suite was not run as a whole yet
}

// Write the page.
func (p *Page) Write(file string) error {
	t, err := template.New("").Funcs(template.FuncMap{"reason": func(t *suite.Test) string {
		lines := strings.Split(t.Reason, "\n")
		return strings.ReplaceAll(strings.Join(lines[:min(2, len(lines))], ": "), "`", "'")
	}}).Parse(pageText)
	if err != nil {
		return err
	}
	data := struct {
		*Page
		Sigs   []*Count
		All    *Count
		Others []*suite.Test
	}{Page: p}
	data.Sigs, data.All = Counts(p.Tests)
	for _, test := range p.Tests {
		if test.State != suite.Passed {
			data.Others = append(data.Others, test)
		}
	}
	var out strings.Builder
	if err := t.Execute(&out, data); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(out.String()), 0o644)
}
