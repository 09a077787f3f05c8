package cli

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"proa": func() {
			os.Exit(Main(context.Background(), "v0.0.0-test", os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

// What the commands print, as sessions that can be read: testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Setup: func(e *testscript.Env) error {
		e.Setenv("KUBECONFIG", e.WorkDir+"/no-kubeconfig")
		return nil
	}})
}
