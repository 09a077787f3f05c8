package images

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestMerged(t *testing.T) {
	for name, want := range map[string]string{
		"/bin/sh": "usr/bin/sh", "./lib64/ld.so": "usr/lib64/ld.so", "lib/x/libc.so.6": "usr/lib/x/libc.so.6",
		"bin": "bin", "/usr/bin/dig": "usr/bin/dig", "etc/passwd": "etc/passwd", "agnhost": "agnhost",
	} {
		if got := merged(name); got != want {
			t.Errorf("merged(%q) = %q, want %q", name, got, want)
		}
	}
}

func example(t *testing.T) Tree {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("binary"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree := Tree{}
	tree.Link("bin", "usr/bin")
	tree.Text("etc/passwd", "root")
	tree.File(0o755|fs.ModeSetuid, "bin/program", program)
	return tree
}

func TestLayer(t *testing.T) {
	tree := example(t)
	first, err := tree.layer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	second, err := tree.layer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if first.digest != second.digest {
		t.Errorf("one tree has two digests: %s and %s", first.digest, second.digest)
	}
	data, err := os.ReadFile(first.file)
	if err != nil {
		t.Fatal(err)
	}
	got := contents(t, data)
	want := map[string]string{"bin": "→ usr/bin", "etc/": "", "etc/passwd": "root", "usr/": "", "usr/bin/": "", "usr/bin/program": "binary"}
	for name, text := range want {
		if have, ok := got[name]; !ok || have != text {
			t.Errorf("%s: %q (%t), want %q", name, have, ok, text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the layer holds %v", got)
	}
	if tree["usr/bin/program"].Mode&fs.ModeSetuid == 0 || unixMode(tree["usr/bin/program"].Mode) != 0o4755 {
		t.Error("the program lost its set-user bit")
	}
}

func TestArchive(t *testing.T) {
	l, err := example(t).layer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	a := &archive{out: tar.NewWriter(&out), layers: map[string]layer{"one": l}, has: map[string]bool{}}
	for _, i := range []Image{{"a:1", Config{Cmd: []string{"sh"}}, []string{"one"}}, {"b:1", Config{User: "7"}, []string{"one"}}} {
		if err := a.add(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	files := contents(t, out.Bytes())
	if len(files) != 4 { // the layer once, two configurations, the manifest
		t.Errorf("the archive holds %d files, want 4", len(files))
	}
	var list []manifest
	if err := json.Unmarshal([]byte(files["manifest.json"]), &list); err != nil {
		t.Fatal(err)
	}
	for i, user := range []string{"", "7"} {
		var c imageConfig
		if err := json.Unmarshal([]byte(files[list[i].Config]), &c); err != nil {
			t.Fatal(err)
		}
		if c.Config.User != user || c.RootFS.DiffIDs[0] != "sha256:"+l.digest || list[i].Layers[0] != l.path() {
			t.Errorf("image %v: %+v", list[i], c)
		}
	}
}

// contents of a tar by name; a link is "→ target".
func contents(t *testing.T, data []byte) map[string]string {
	files := map[string]string{}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(text)
		if h.Typeflag == tar.TypeSymlink {
			files[h.Name] = "→ " + h.Linkname
		}
	}
}
