// Package registry keeps the images that were imported into a cluster and
// serves them to the nodes' runtimes as a read-only OCI registry, which they ask
// before the registry that an image's name points to. So an image that was
// imported is there for every node and every pull policy, without a network.
//
// The images are an OCI image layout in a folder: other tools can read it.
package registry

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image that the store holds, under one name.
type Image struct {
	Name     string    `json:"name"`   // whole: docker.io/library/nginx:latest
	Digest   string    `json:"digest"` // of the manifest or index, sha256:…
	Size     int64     `json:"size"`   // bytes of everything it refers to
	Imported time.Time `json:"imported"`
}

// Annotations of the layout's index.
const (
	nameAnnotation     = "io.containerd.image.name"
	importedAnnotation = "dev.proa.imported"
)

// Store of images. Its methods may be called concurrently.
type Store struct {
	dir string

	mu      sync.RWMutex
	index   v1.IndexManifest
	version int64
	changed chan struct{} // closed when version moves
}

// Open the store in a folder, which is made when it is not there. What an
// import that was cut off left behind is removed.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, version: 1, changed: make(chan struct{})}
	s.index = v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	if err := os.MkdirAll(s.blobs(), 0o755); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(s.scratch()); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &s.index); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "index.json"), err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return s, replace(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
}

// Images in the order of their names.
func (s *Store) Images() []Image {
	images, _, _ := s.State()
	return images
}

// State is the images, a number that grows with every change, and a channel
// that is closed by the next one.
func (s *Store) State() (images []Image, version int64, changed <-chan struct{}) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, d := range s.index.Manifests {
		at, _ := time.Parse(time.RFC3339, d.Annotations[importedAnnotation])
		images = append(images, Image{Name: d.Annotations[nameAnnotation], Digest: d.Digest.String(), Size: s.sizeOf(d), Imported: at})
	}
	slices.SortFunc(images, func(a, b Image) int { return cmp.Compare(a.Name, b.Name) })
	return images, s.version, s.changed
}

// Remove an image by its name, as it was imported or whole. It returns false
// when there is none. Blobs that nothing refers to any more go with it.
func (s *Store) Remove(image string) (bool, error) {
	full, err := FullName(image)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.index.Manifests)
	s.index.Manifests = slices.DeleteFunc(s.index.Manifests, func(d v1.Descriptor) bool { return d.Annotations[nameAnnotation] == full })
	if len(s.index.Manifests) == n {
		return false, nil
	}
	return true, s.save()
}

// FullName of an image: registry, repository and tag or digest spelled out, as
// the runtime does it.
func FullName(image string) (string, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return "", fmt.Errorf("%q is no image name: write REPOSITORY:TAG, such as weather-service:1.0: %w", image, err)
	}
	sep := ":"
	if _, ok := ref.(name.Digest); ok {
		sep = "@"
	}
	return host(ref.Context()) + "/" + ref.Context().RepositoryStr() + sep + ref.Identifier(), nil
}

// host is what the runtime calls a registry, which is not what the library does
// for Docker's.
func host(r name.Repository) string {
	if r.RegistryStr() == name.DefaultRegistry {
		return "docker.io"
	}
	return r.RegistryStr()
}

// put names a manifest whose blobs are all there. Call with mu held.
func (s *Store) put(image string, d v1.Descriptor, now time.Time) {
	d.Annotations = map[string]string{nameAnnotation: image, importedAnnotation: now.UTC().Format(time.RFC3339)}
	s.index.Manifests = slices.DeleteFunc(s.index.Manifests, func(o v1.Descriptor) bool { return o.Annotations[nameAnnotation] == image })
	s.index.Manifests = append(s.index.Manifests, d)
}

// save writes the index, tells those who wait, and removes blobs that nothing
// refers to. Call with mu held.
func (s *Store) save() error {
	data, err := json.MarshalIndent(s.index, "", " ")
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(s.dir, "index.json"), data); err != nil {
		return err
	}
	s.version++
	close(s.changed)
	s.changed = make(chan struct{})
	return s.sweep()
}

func (s *Store) sweep() error {
	used := map[string]bool{}
	for _, d := range s.index.Manifests {
		s.walk(d, func(b v1.Descriptor) { used[b.Digest.Hex] = true })
	}
	files, err := os.ReadDir(s.blobs())
	if err != nil {
		return err
	}
	for _, f := range files {
		if !used[f.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(s.blobs(), f.Name())))
		}
	}
	return err
}

// walk visits a descriptor and all that it refers to and that is there.
func (s *Store) walk(d v1.Descriptor, visit func(v1.Descriptor)) {
	visit(d)
	if !d.MediaType.IsImage() && !d.MediaType.IsIndex() {
		return
	}
	data, err := os.ReadFile(s.blob(d.Digest))
	if err != nil {
		return
	}
	for _, child := range children(data) {
		s.walk(child, visit)
	}
}

// children are the descriptors in a manifest or an index.
func children(manifest []byte) []v1.Descriptor {
	var m struct {
		Config    *v1.Descriptor
		Layers    []v1.Descriptor
		Manifests []v1.Descriptor
	}
	if json.Unmarshal(manifest, &m) != nil {
		return nil
	}
	all := slices.Concat(m.Manifests, m.Layers)
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	return all
}

func (s *Store) sizeOf(d v1.Descriptor) (size int64) {
	s.walk(d, func(b v1.Descriptor) { size += b.Size })
	return size
}

func (s *Store) blobs() string              { return filepath.Join(s.dir, "blobs", "sha256") }
func (s *Store) scratch() string            { return filepath.Join(s.dir, "importing") }
func (s *Store) blob(digest v1.Hash) string { return filepath.Join(s.blobs(), digest.Hex) }

func (s *Store) has(digest v1.Hash) bool {
	_, err := os.Stat(s.blob(digest))
	return err == nil && digest.Algorithm == "sha256"
}

// find a manifest by what a client asks for: the registry's host ("" = not
// said), the repository, and a tag or digest.
func (s *Store) find(host, repository, reference string) (v1.Descriptor, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if digest, err := v1.NewHash(reference); err == nil {
		return s.findDigest(digest)
	}
	suffix := "/" + repository + ":" + reference
	for _, d := range s.index.Manifests {
		image := d.Annotations[nameAnnotation]
		if image == host+suffix || host == "" && strings.HasSuffix(image, suffix) {
			return d, true
		}
	}
	return v1.Descriptor{}, false
}

func (s *Store) findDigest(digest v1.Hash) (found v1.Descriptor, ok bool) {
	for _, root := range s.index.Manifests {
		s.walk(root, func(d v1.Descriptor) {
			if d.Digest == digest && (d.MediaType.IsImage() || d.MediaType.IsIndex()) {
				found, ok = d, true
			}
		})
		if ok {
			break
		}
	}
	return found, ok && s.has(digest)
}

// replace a small file in one step.
func replace(file string, data []byte) error {
	tmp := file + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}
