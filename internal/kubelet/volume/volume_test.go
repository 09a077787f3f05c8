package volume

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
)

type sources map[string]map[string]string

func (s sources) ConfigMap(_, name string) (*v1.ConfigMap, error) {
	if d, ok := s[name]; ok {
		return &v1.ConfigMap{Data: d}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
}
func (s sources) Secret(_, name string) (*v1.Secret, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}
func (s sources) Claim(context.Context, string, string) (*v1.PersistentVolumeClaim, *v1.PersistentVolume, error) {
	return nil, nil, apierrors.NewNotFound(schema.GroupResource{Resource: "persistentvolumeclaims"}, "x")
}
func (s sources) Token(context.Context, string, string, *authv1.TokenRequest) (*authv1.TokenRequest, error) {
	return nil, apierrors.NewForbidden(schema.GroupResource{}, "x", nil)
}

func podWith(v ...v1.Volume) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "u"}, Spec: v1.PodSpec{Volumes: v}}
}

func configMap(name string, optional bool, items ...v1.KeyToPath) v1.Volume {
	return v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{
		LocalObjectReference: v1.LocalObjectReference{Name: name}, Items: items, Optional: &optional}}}
}

func read(t *testing.T, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestConfigMapFollowsItsObject(t *testing.T) {
	src := sources{"m": {"a": "1", "b": "2"}}
	m := &Manager{Root: t.TempDir(), Sources: src}
	p := podWith(configMap("m", false))
	r, err := m.Mount(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	dir := r.Volumes["v"].Path
	if read(t, dir, "a") != "1" || read(t, dir, "b") != "2" {
		t.Error("files do not show the ConfigMap")
	}
	before, _ := os.Readlink(filepath.Join(dir, "..data"))
	if _, err := m.Mount(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if same, _ := os.Readlink(filepath.Join(dir, "..data")); same != before {
		t.Error("nothing changed, and the files were written anew")
	}
	src["m"] = map[string]string{"a": "3", "c": "4"}
	if _, err := m.Mount(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if read(t, dir, "a") != "3" || read(t, dir, "c") != "4" {
		t.Error("files do not follow the ConfigMap")
	}
	if _, err := os.Lstat(filepath.Join(dir, "b")); !os.IsNotExist(err) {
		t.Error("a key that is gone still shows")
	}
	if err := m.Remove(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(m.PodDir(p.UID)); !os.IsNotExist(err) {
		t.Error("the folder of the pod is left over")
	}
}

func TestItemsModesAndMissing(t *testing.T) {
	m := &Manager{Root: t.TempDir(), Sources: sources{"m": {"a": "1"}}}
	r, err := m.Mount(t.Context(), podWith(configMap("m", false, v1.KeyToPath{Key: "a", Path: "sub/file", Mode: ptr.To[int32](0o400)})))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(r.Volumes["v"].Path, "sub", "file"))
	if err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("file: %v %v", info, err)
	}
	for name, c := range map[string]struct {
		v    v1.Volume
		want string
	}{
		"no such object":     {configMap("none", false), `configmaps "none" not found`},
		"no such key":        {configMap("m", false, v1.KeyToPath{Key: "z", Path: "z"}), "references non-existent config key: z"},
		"optional object":    {configMap("none", true), ""},
		"optional key":       {configMap("m", true, v1.KeyToPath{Key: "z", Path: "z"}), ""},
		"out of the volume":  {configMap("m", false, v1.KeyToPath{Key: "a", Path: "../x"}), "invalid path"},
		"host path of type":  {v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/proc/version", Type: ptr.To(v1.HostPathDirectory)}}}, "/proc/version is not a directory"},
		"host path as it is": {v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/nowhere"}}}, ""},
	} {
		_, err := m.Mount(t.Context(), podWith(c.v))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestSubPathStaysInside(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("binding a subPath needs root")
	}
	root, at := t.TempDir(), filepath.Join(t.TempDir(), "0")
	if err := os.Symlink("/etc", filepath.Join(root, "out")); err != nil {
		t.Fatal(err)
	}
	if _, err := SubPath(root, "new/dir", at); err != nil {
		t.Skipf("binding does not work here: %v", err)
	}
	defer clear(filepath.Dir(at))
	os.WriteFile(filepath.Join(at, "f"), []byte("x"), 0o644)
	if read(t, root, "new", "dir", "f") != "x" {
		t.Error("the bind does not show the folder in the volume")
	}
	if path, err := SubPath(root, "out/passwd", at); err == nil {
		if b, _ := os.ReadFile(path); strings.Contains(string(b), "root:") {
			t.Error("a link led out of the volume")
		}
	}
	clear(filepath.Dir(at))
}

// bound is a claim with its volume.
type bound struct {
	sources
	pv *v1.PersistentVolume
}

func (b bound) Claim(context.Context, string, string) (*v1.PersistentVolumeClaim, *v1.PersistentVolume, error) {
	return &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: "c"}, Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound}}, b.pv, nil
}

// A database does not run as root: the folder that was made for it is one it may
// write to, and stays as it was with what is in it.
func TestProvisionedVolumeIsWritable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "volumes", "pvc-1")
	m := &Manager{Root: t.TempDir(), Sources: bound{pv: &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": "proa.dev/local-path"}},
		Spec: v1.PersistentVolumeSpec{
			ClaimRef:               &v1.ObjectReference{UID: "c"},
			PersistentVolumeSource: v1.PersistentVolumeSource{HostPath: &v1.HostPathVolumeSource{Path: path, Type: ptr.To(v1.HostPathDirectoryOrCreate)}},
		},
	}}}
	p := podWith(v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}})
	for range 2 {
		r, err := m.Mount(t.Context(), p)
		if err != nil || r.Volumes["v"].Path != path {
			t.Fatal(r, err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o777 {
			t.Fatal(info.Mode(), err)
		}
		if above, err := os.Stat(filepath.Dir(path)); err != nil || above.Mode().Perm() != 0o700 {
			t.Fatal(above.Mode(), err)
		}
		if err := os.WriteFile(filepath.Join(path, "rows"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
