package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dockerArchive of one image with one layer, as "docker save" wrote it for years.
func dockerArchive(t *testing.T, config, layer []byte, tags ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	manifest, _ := json.Marshal([]map[string]any{{"Config": "c.json", "RepoTags": tags, "Layers": []string{"l/layer.tar"}}})
	for name, data := range map[string][]byte{"c.json": config, "l/layer.tar": layer, "manifest.json": manifest} {
		if err := addFile(w, name, 0o644, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zipped(data []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(data)
	z.Close()
	return out.Bytes()
}

func get(t *testing.T, h http.Handler, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

func TestImportedImageIsServed(t *testing.T) {
	s := open(t)
	layer := []byte("a layer")
	for _, archive := range [][]byte{
		dockerArchive(t, []byte("{}"), layer, "mdneuzerling/plumber-on-k8s"),
		zipped(dockerArchive(t, []byte("{}"), layer, "mdneuzerling/plumber-on-k8s:latest")),
	} {
		images, err := s.Import(bytes.NewReader(archive), "")
		if err != nil {
			t.Fatal(err)
		}
		if len(images) != 1 || images[0].Name != "docker.io/mdneuzerling/plumber-on-k8s:latest" {
			t.Fatalf("%+v", images)
		}
	}
	m := s.Mirror()
	const path = "/v2/mdneuzerling/plumber-on-k8s/manifests/"
	w := get(t, m, "GET", path+"latest?ns=docker.io")
	digest := w.Header().Get("Docker-Content-Digest")
	if w.Code != 200 || !strings.HasPrefix(digest, "sha256:") {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	if by := get(t, m, "GET", path+digest+"?ns=docker.io"); by.Code != 200 || by.Body.String() != w.Body.String() {
		t.Errorf("by digest: %d", by.Code)
	}
	if h := get(t, m, "HEAD", path+"latest?ns=docker.io"); h.Code != 200 || h.Body.Len() != 0 {
		t.Errorf("HEAD: %d, %d bytes", h.Code, h.Body.Len())
	}
	var manifest struct {
		Layers []struct{ Digest, MediaType string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &manifest); err != nil {
		t.Fatal(err)
	}
	if b := get(t, m, "GET", "/v2/mdneuzerling/plumber-on-k8s/blobs/"+manifest.Layers[0].Digest); b.Body.String() != string(layer) {
		t.Errorf("layer: %d %q", b.Code, b.Body)
	}
	for path, code := range map[string]int{
		"/v2/":                         200,
		path + "latest?ns=quay.io":     404,
		path + "other?ns=docker.io":    404,
		"/v2/x/blobs/sha256:../../etc": 400,
		"/v2/x/tags/list":              404,
	} {
		if w := get(t, m, "GET", path); w.Code != code {
			t.Errorf("%s: %d, not %d", path, w.Code, code)
		}
	}
	if w := get(t, m, "PUT", "/v2/x/manifests/y"); w.Code != 405 || !strings.Contains(w.Body.String(), "proa image import") {
		t.Errorf("PUT: %d %s", w.Code, w.Body)
	}
}

func TestImagesOutliveTheProcess(t *testing.T) {
	s := open(t)
	if _, err := s.Import(bytes.NewReader(dockerArchive(t, []byte("{}"), []byte("x"), "a:1", "b:2")), ""); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(again.Images()); n != 2 {
		t.Fatalf("%d images", n)
	}
	_, before, changed := again.State()
	if ok, err := again.Remove("a:1"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	<-changed
	if _, after, _ := again.State(); after <= before {
		t.Error("the version did not move")
	}
	if again.Images()[0].Size == 0 {
		t.Error("removing one name took the blobs of the other")
	}
	if ok, err := again.Remove("b:2"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if left, _ := os.ReadDir(again.blobs()); len(left) != 0 {
		t.Errorf("%d blobs are left", len(left))
	}
	if ok, _ := again.Remove("b:2"); ok {
		t.Error("removed twice")
	}
}

func TestBadArchives(t *testing.T) {
	good := dockerArchive(t, []byte("{}"), []byte("xy"), "a:1")
	var empty bytes.Buffer
	tar.NewWriter(&empty).Close()
	for _, c := range []struct {
		what, want string
		archive    []byte
		as         string
	}{
		{"text", "cannot be read", []byte(strings.Repeat("FROM debian\n", 100)), ""},
		{"nothing in it", "holds no image", empty.Bytes(), ""},
		{"cut off", "cannot be read", good[:513], ""},
		{"no name", "--name", dockerArchive(t, []byte("{}"), []byte("x")), ""},
		{"bad name", "no image name", good, "Has Space"},
	} {
		s := open(t)
		_, err := s.Import(bytes.NewReader(c.archive), c.as)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
		if n := len(s.Images()); n != 0 {
			t.Errorf("%s: %d images were kept", c.what, n)
		}
	}
}

func TestPause(t *testing.T) {
	s := open(t)
	for range 2 {
		if err := s.AddPause(); err != nil {
			t.Fatal(err)
		}
	}
	if w := get(t, s.Mirror(), "GET", "/v2/pause/manifests/2?ns=proa.local"); w.Code != 200 || !strings.Contains(w.Body.String(), "arm64") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if _, err := elf.NewFile(bytes.NewReader(pauseProgram(arch))); err != nil {
			t.Errorf("%s: %v", arch, err)
		}
	}
}

// The pause program runs, and sleeps until it is killed.
func TestPauseProgramRuns(t *testing.T) {
	program := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(program, pauseProgram(runtime.GOARCH), 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("it ended by itself: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	c.Process.Kill()
	<-ended
}

func TestFullName(t *testing.T) {
	for name, want := range map[string]string{
		"nginx":                   "docker.io/library/nginx:latest",
		"a/b:1":                   "docker.io/a/b:1",
		"registry.k8s.io/pause:3": "registry.k8s.io/pause:3",
		"localhost:5000/x":        "localhost:5000/x:latest",
	} {
		if got, err := FullName(name); got != want || err != nil {
			t.Errorf("%s: %s %v", name, got, err)
		}
	}
	if _, err := FullName("a:1:2"); err == nil {
		t.Error("two tags are a name")
	}
}
