package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// encryption writes an EncryptionConfiguration of one or more "RESOURCES: PROVIDERS".
func encryption(t testing.TB, lists ...string) string {
	t.Helper()
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"
	for _, l := range lists {
		resources, providers, _ := strings.Cut(l, ": ")
		text += "- resources: [" + resources + "]\n  providers: [" + providers + "]\n"
	}
	file := filepath.Join(t.TempDir(), "encryption.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
