package encrypt

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	upstream "k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
)

const (
	secretA = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	secretB = "YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlqYWI="
)

var (
	secrets    = schema.GroupResource{Resource: "secrets"}
	configmaps = schema.GroupResource{Resource: "configmaps"}
	widgets    = schema.GroupResource{Group: "example.com", Resource: "widgets"}
)

// config writes a configuration of one or more "RESOURCES: PROVIDERS".
func config(t *testing.T, lists ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "encryption.yaml")
	write(t, file, lists...)
	return file
}

func write(t *testing.T, file string, lists ...string) {
	t.Helper()
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"
	for _, l := range lists {
		resources, providers, _ := strings.Cut(l, ": ")
		text += "- resources: [" + resources + "]\n  providers: [" + providers + "]\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func keyOf(provider, name, secret string) string {
	return provider + ": {keys: [{name: " + name + ", secret: " + secret + "}]}"
}

func entry(provider, name, secret string) string { return "{" + keyOf(provider, name, secret) + "}" }

func open(t *testing.T, file string) *Values {
	t.Helper()
	v, err := Open(t.Context(), Config{File: file, Prefix: "/registry"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func seal(t *testing.T, v *Values, of schema.GroupResource, key, text string) []byte {
	t.Helper()
	data, err := v.Seal(t.Context(), of, key, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func wantOpen(t *testing.T, v *Values, of schema.GroupResource, key string, data []byte, text string, stale bool) {
	t.Helper()
	got, old, err := v.Open(t.Context(), of, key, data)
	if err != nil || string(got) != text || old != stale {
		t.Errorf("%s %s: got %q, stale %v, %v; want %q, stale %v", of, key, got, old, err, text, stale)
	}
}

// TestBothWays: what upstream's code encrypts is read here, and the other way
// round, from the same file.
func TestBothWays(t *testing.T) {
	plugin := startPlugin(t, "key-1")
	for name, provider := range map[string]string{
		"aescbc":    entry("aescbc", "k1", secretA),
		"aescbc16":  entry("aescbc", "short", "MDEyMzQ1Njc4OTAxMjM0NQ=="),
		"aesgcm":    entry("aesgcm", "k1", secretA),
		"secretbox": entry("secretbox", "k1", secretA),
		"kms":       plugin.entry("vault"),
	} {
		t.Run(name, func(t *testing.T) {
			file := config(t, "secrets: "+provider, "'*.*': "+entry("aesgcm", "all", secretB))
			theirs, err := upstream.LoadEncryptionConfig(t.Context(), file, false, "test")
			if err != nil {
				t.Fatal(err)
			}
			transformer := upstream.StaticTransformers(theirs.Transformers)
			ours := open(t, file)
			for of, key := range map[schema.GroupResource]string{secrets: "/secrets/ns/a", widgets: "/example.com/widgets/ns/a"} {
				for _, text := range []string{"k8s\x00value", "", strings.Repeat("x", 16), strings.Repeat("long ", 5000)} {
					th := transformer.TransformerForResource(of)
					data, err := th.TransformToStorage(t.Context(), []byte(text), value.DefaultContext("/registry"+key))
					if err != nil {
						t.Fatal(err)
					}
					wantOpen(t, ours, of, key, data, text, false)
					data = seal(t, ours, of, key, text)
					back, stale, err := th.TransformFromStorage(t.Context(), data, value.DefaultContext("/registry"+key))
					if err != nil || stale || string(back) != text {
						t.Errorf("upstream reads %q, stale %v, %v", back, stale, err)
					}
				}
			}
		})
	}
}

func TestPrefixes(t *testing.T) {
	plugin := startPlugin(t, "key-1")
	for prefix, provider := range map[string]string{
		"k8s:enc:aescbc:v1:k1:":    entry("aescbc", "k1", secretA),
		"k8s:enc:aesgcm:v1:k1:":    entry("aesgcm", "k1", secretA),
		"k8s:enc:secretbox:v1:k1:": entry("secretbox", "k1", secretA),
		"k8s:enc:kms:v2:vault:":    plugin.entry("vault"),
	} {
		if data := seal(t, open(t, config(t, "secrets: "+provider)), secrets, "/secrets/a/b", "x"); !bytes.HasPrefix(data, []byte(prefix)) {
			t.Errorf("got %q, want it to begin with %s", data, prefix)
		}
	}
}

// TestRotation goes the way that the documentation of Kubernetes describes: the new
// key second, then first, then alone; at last back to none.
func TestRotation(t *testing.T) {
	a, b, plain := entry("aescbc", "a", secretA), entry("aesgcm", "b", secretB), "{identity: {}}"
	const key = "/secrets/ns/x"
	byA := seal(t, open(t, config(t, "secrets: "+a)), secrets, key, "text")
	byB := seal(t, open(t, config(t, "secrets: "+b)), secrets, key, "text")
	for _, step := range []struct {
		providers                  string
		staleA, staleB, stalePlain bool
		knowsA, knowsB, knowsPlain bool
		writesWith                 string
	}{
		{providers: plain, knowsPlain: true, writesWith: "text"},
		{providers: a + "," + plain, knowsA: true, knowsPlain: true, stalePlain: true, writesWith: "k8s:enc:aescbc:v1:a:"},
		{providers: a + "," + b + "," + plain, knowsA: true, knowsB: true, staleB: true, knowsPlain: true, stalePlain: true, writesWith: "k8s:enc:aescbc:v1:a:"},
		{providers: b + "," + a, knowsA: true, knowsB: true, staleA: true, writesWith: "k8s:enc:aesgcm:v1:b:"},
		{providers: b, knowsB: true, writesWith: "k8s:enc:aesgcm:v1:b:"},
		{providers: plain + "," + b, knowsB: true, staleB: true, knowsPlain: true, writesWith: "text"},
	} {
		v := open(t, config(t, "secrets: "+step.providers))
		for _, c := range []struct {
			what         string
			data         []byte
			knows, stale bool
		}{{"a", byA, step.knowsA, step.staleA}, {"b", byB, step.knowsB, step.staleB}, {"plain", []byte("text"), step.knowsPlain, step.stalePlain}} {
			got, stale, err := v.Open(t.Context(), secrets, key, c.data)
			switch {
			case !c.knows && (err == nil || !strings.Contains(err.Error(), "/registry"+key)):
				t.Errorf("%s: what %s wrote: got %v, want an error with the key", step.providers, c.what, err)
			case c.knows && (err != nil || string(got) != "text" || stale != c.stale):
				t.Errorf("%s: what %s wrote: got %q, stale %v, %v", step.providers, c.what, got, stale, err)
			}
		}
		if data := seal(t, v, secrets, key, "text"); !strings.HasPrefix(string(data), step.writesWith) {
			t.Errorf("%s writes %q", step.providers, data)
		}
	}
}

func TestBoundToItsKey(t *testing.T) {
	v := open(t, config(t, "secrets: "+entry("aesgcm", "a", secretA)))
	data := seal(t, v, secrets, "/secrets/ns/x", "text")
	if _, _, err := v.Open(t.Context(), secrets, "/secrets/ns/y", data); err == nil {
		t.Error("a value is good under another key")
	}
}

func TestWhichResources(t *testing.T) {
	v := open(t, config(t,
		"events: {identity: {}}",
		"secrets, widgets.example.com: "+entry("aesgcm", "one", secretA),
		"'*.apps': "+entry("aesgcm", "two", secretA),
		"'*.': "+entry("aesgcm", "three", secretA),
		"'*.*': "+entry("aesgcm", "four", secretA)))
	for of, want := range map[string]string{"events": "x", "secrets": "k8s:enc:aesgcm:v1:one:", "widgets.example.com": "k8s:enc:aesgcm:v1:one:",
		"deployments.apps": "k8s:enc:aesgcm:v1:two:", "pods": "k8s:enc:aesgcm:v1:three:", "leases.coordination.k8s.io": "k8s:enc:aesgcm:v1:four:"} {
		if data := seal(t, v, schema.ParseGroupResource(of), "/k", "x"); !strings.HasPrefix(string(data), want) {
			t.Errorf("%s is written as %q, want %s", of, data, want)
		}
	}
	only := open(t, config(t, "secrets: "+entry("aesgcm", "one", secretA)))
	wantOpen(t, only, configmaps, "/configmaps/a/b", []byte("plain"), "plain", false)
}

func TestErrorsDoNotTell(t *testing.T) {
	v := open(t, config(t, "secrets: "+entry("aesgcm", "one", secretA)))
	other := seal(t, open(t, config(t, "secrets: "+entry("aesgcm", "two", secretA))), secrets, "/secrets/ns/x", "confidential")
	wrong := seal(t, open(t, config(t, "secrets: "+entry("aesgcm", "one", secretB))), secrets, "/secrets/ns/x", "confidential")
	for want, data := range map[string][]byte{
		`/registry/secrets/ns/x is encrypted with aesgcm key "two", which`:     other,
		`/registry/secrets/ns/x cannot be decrypted with aesgcm key "one" of `: wrong,
		`/registry/secrets/ns/x is not encrypted, and`:                         []byte("confidential"),
		`/registry/secrets/ns/x is encrypted with something unknown`:           []byte("k8s:enc:\x00\x01confidential:::::"),
	} {
		_, _, err := v.Open(t.Context(), secrets, "/secrets/ns/x", data)
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "confidential") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestBadConfigurations(t *testing.T) {
	good := entry("aesgcm", "a", secretA)
	for want, lists := range map[string][]string{
		"resources[0].providers[0].aesgcm.keys[0].secret: Invalid value: \"REDACTED\": it has 3 bytes": {"secrets: " + entry("aesgcm", "a", "YWJj")},
		"it is not base64":                        {"secrets: " + entry("aescbc", "a", "geheim!")},
		"exactly one":                             {"secrets: {identity: {}, " + keyOf("aesgcm", "a", secretA) + "}"},
		"write *. for":                            {"'*': " + good},
		"an earlier entry for *. has it already":  {"'*.': " + good, "secrets: " + good},
		"an earlier entry for *.* has it already": {"'*.*': " + good, "widgets.example.com: " + good},
		"which it is part of":                     {"secrets, '*.': " + good},
		"named twice":                             {"secrets, secrets: " + good},
		"write events":                            {"events.events.k8s.io: " + good},
		"no capital letters":                      {"Secrets: " + good},
		"write v2":                                {"secrets: {kms: {name: a, endpoint: 'unix:///x'}}"},
		"write unix:///PATH":                      {"secrets: {kms: {name: a, apiVersion: v2, endpoint: 'tcp://x'}}"},
		"it may not contain a colon":              {"secrets: {kms: {name: 'a:b', apiVersion: v2, endpoint: 'unix:///x'}}"},
		"another plugin has this name":            {"secrets: {kms: {name: a, apiVersion: v2, endpoint: 'unix:///x'}},{kms: {name: a, apiVersion: v2, endpoint: 'unix:///y'}}"},
		"unknown field":                           {"secrets: {aesgmc: {}}"},
		"resources: Required value: name at least one resource and": {},
	} {
		_, err := Open(t.Context(), Config{File: config(t, lists...)})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: got %v, want %s", lists, err, want)
		}
	}
}

func TestReload(t *testing.T) {
	file := config(t, "secrets: "+entry("aesgcm", "a", secretA)+",{identity: {}}")
	v, err := Open(t.Context(), Config{File: file, Prefix: "/registry", Reload: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	byA := seal(t, v, secrets, "/secrets/a/b", "text")
	if err := os.WriteFile(file, []byte("nonsense"), 0o600); err != nil { // changes nothing
		t.Fatal(err)
	}
	next := file + ".new"
	write(t, next, "secrets: "+entry("aesgcm", "b", secretB)+","+entry("aesgcm", "a", secretA))
	if err := os.Rename(next, file); err != nil {
		t.Fatal(err)
	}
	select {
	case <-v.Changed():
	case <-time.After(20 * time.Second):
		t.Fatal("the changed file was not read")
	}
	wantOpen(t, v, secrets, "/secrets/a/b", byA, "text", true)
	if data := seal(t, v, secrets, "/secrets/a/b", "text"); !strings.HasPrefix(string(data), "k8s:enc:aesgcm:v1:b:") {
		t.Errorf("written as %q", data)
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, name := range []string{"aescbc", "aesgcm", "secretbox"} {
		b.Run(name, func(b *testing.B) {
			file := filepath.Join(b.TempDir(), "c")
			text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: [{resources: [secrets], providers: [" + entry(name, "a", secretA) + "]}]"
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				b.Fatal(err)
			}
			v, err := Open(context.Background(), Config{File: file})
			if err != nil {
				b.Fatal(err)
			}
			defer v.Close()
			value := make([]byte, 1024)
			for b.Loop() {
				data, _ := v.Seal(b.Context(), secrets, "/secrets/a/b", value)
				if _, _, err := v.Open(b.Context(), secrets, "/secrets/a/b", data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
