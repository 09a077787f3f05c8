package validate

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func good(e *Errs, p *Path, n int) {
	for i := range n {
		at := p.Child("a").Index(i)
		if n > 100 {
			e.Invalid(at.Child("b").Key("k"), n, "bad")
		}
	}
}

func TestPathsOfGoodObjectsCostNothing(t *testing.T) {
	var e Errs
	n := testing.AllocsPerRun(100, func() {
		good(&e, Root("spec"), 3)
		Labels(&e, map[string]string{"a": "b"}, Root("metadata").Child("labels"))
	})
	if n > 0 {
		t.Errorf("%v allocations", n)
	}
	good(&e, Root("spec"), 101)
	if got := e.List()[2].Field; got != "spec.a[2].b[k]" {
		t.Error(got)
	}
}

// The byte checks accept exactly what apimachinery accepts.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"a", "", "a.b", "-a", "a-", "a.-b", "a-.b", "A", "a/b", "/b", "a/", "a/b/c", "x.y/Z_1.2", "0a", strings.Repeat("a", 64), strings.Repeat("a", 254), "ä", "a..b", "a\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, same := range map[string]bool{
			"subdomain": isSubdomain(s) == (validation.IsDNS1123Subdomain(s) == nil),
			"label":     isLabel(s) == (validation.IsDNS1123Label(s) == nil),
			"1035":      (Label1035(s) == nil) == (validation.IsDNS1035Label(s) == nil),
			"qualified": isQualifiedName(s) == (validation.IsQualifiedName(s) == nil),
			"value":     (LabelValue(s) == nil) == (validation.IsValidLabelValue(s) == nil),
		} {
			if !same {
				t.Errorf("%s: %q", name, s)
			}
		}
	})
}
