// Package translations keeps kubectl's packages from unpacking their
// translations when this program starts as anything else: that costs every
// start of a server 25 ms and 4.4 MB. It has to run before those packages are
// initialised, which is why this one package has an initialiser: kubectl's i18n
// asks for just that. Packages are initialised in the order of their import
// paths once what they import is, so importing this one from main is enough.
package translations

import (
	"os"

	"k8s.io/kubectl/pkg/util/i18n"
)

var _ = skip()

func skip() error {
	if len(os.Args) > 1 && os.Args[1] == "kubectl" {
		return nil
	}
	return i18n.SetLoadTranslationsFunc(func() error { return nil })
}
