package registry

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Import reads a docker archive or an OCI archive ("docker save", "podman save",
// "buildah push oci-archive:"), gzipped or not, and keeps its images. as names
// the image; "" takes the names that the archive gives. The archive is read
// once, as a stream; nothing is kept when something in it is wrong.
func (s *Store) Import(r io.Reader, as string) ([]Image, error) {
	if as != "" {
		full, err := FullName(as)
		if err != nil {
			return nil, err
		}
		as = full
	}
	if err := os.MkdirAll(s.scratch(), 0o755); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.scratch(), "")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	a := &archive{dir: dir, files: map[string]file{}, links: map[string]string{}, made: map[string]file{}}
	if err := a.read(r); err != nil {
		return nil, fmt.Errorf("the archive cannot be read: %w", err)
	}
	found, err := a.images()
	if err != nil {
		return nil, err
	}
	if found, err = named(found, as); err != nil {
		return nil, err
	}
	return s.keep(a, found)
}

// foundImage is an image of an archive; without a name when the archive gives none.
type foundImage struct {
	name string
	root v1.Descriptor
}

// named gives the images the names they are kept under.
func named(found []foundImage, as string) ([]foundImage, error) {
	switch {
	case len(found) == 0:
		return nil, errors.New("the archive holds no image: it has neither manifest.json (docker save) nor index.json (OCI layout) that names one")
	case as != "":
		for _, f := range found[1:] {
			if f.root.Digest != found[0].root.Digest {
				return nil, errors.New("the archive holds several images: import it without --name")
			}
		}
		return []foundImage{{as, found[0].root}}, nil
	}
	for i, f := range found {
		if f.name == "" {
			return nil, errors.New("the archive does not name its image: say how to call it with --name REPOSITORY:TAG")
		}
		full, err := FullName(f.name)
		if err != nil {
			return nil, err
		}
		found[i].name = full
	}
	return found, nil
}

func (s *Store) keep(a *archive, found []foundImage) ([]Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := map[string]bool{}
	for _, f := range found {
		if err := s.take(a, f.root); err != nil {
			return nil, err
		}
		s.put(f.name, f.root, time.Now())
		names[f.name] = true
	}
	if err := s.save(); err != nil {
		return nil, err
	}
	var images []Image
	for _, d := range s.index.Manifests {
		if n := d.Annotations[nameAnnotation]; names[n] {
			images = append(images, Image{Name: n, Digest: d.Digest.String(), Size: s.sizeOf(d)})
		}
	}
	return images, nil
}

// take moves the blobs of a manifest from the archive into the store.
func (s *Store) take(a *archive, d v1.Descriptor) error {
	f, ok := a.blob(d.Digest)
	if !ok {
		return fmt.Errorf("the archive lacks blob %s", d.Digest)
	}
	if d.MediaType.IsImage() || d.MediaType.IsIndex() {
		data, err := os.ReadFile(f.path)
		if errors.Is(err, os.ErrNotExist) {
			data, err = os.ReadFile(s.blob(d.Digest)) // moved by an image before
		}
		if err != nil {
			return err
		}
		for _, child := range children(data) {
			if err := s.take(a, child); err != nil {
				return err
			}
		}
	}
	if s.has(d.Digest) {
		return nil
	}
	return os.Rename(f.path, s.blob(d.Digest))
}

// archive is one that was read: its files, each with its digest.
type archive struct {
	dir   string
	files map[string]file // by path in the archive
	links map[string]string
	made  map[string]file // by digest
}

type file struct {
	path   string
	size   int64
	digest v1.Hash
	head   [4]byte
}

func (a *archive) read(r io.Reader) error {
	b := bufio.NewReaderSize(r, 1<<20)
	r = b
	if magic, _ := b.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(b)
		if err != nil {
			return err
		}
		r = z
	}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			if a.files[name], err = a.write(t); err != nil {
				return err
			}
		case tar.TypeSymlink:
			a.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			a.links[name] = path.Clean(h.Linkname)
		}
	}
}

// write keeps content under its digest in the scratch folder.
func (a *archive) write(r io.Reader) (file, error) {
	out, err := os.CreateTemp(a.dir, "")
	if err != nil {
		return file{}, err
	}
	defer out.Close()
	sum := sha256.New()
	var head head
	n, err := io.Copy(io.MultiWriter(out, sum, &head), r)
	if err != nil {
		return file{}, err
	}
	f := file{path: out.Name(), size: n, digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}, head: head.bytes}
	a.made[f.digest.Hex] = f
	return f, out.Close()
}

// head keeps the first bytes that are written to it.
type head struct {
	bytes [4]byte
	n     int
}

func (h *head) Write(p []byte) (int, error) {
	h.n += copy(h.bytes[h.n:], p)
	return len(p), nil
}

func (a *archive) file(name string) (file, bool) {
	name = path.Clean(name)
	for range 4 { // links to links are rare, loops are not followed
		if f, ok := a.files[name]; ok {
			return f, true
		}
		name = a.links[name]
	}
	return file{}, false
}

func (a *archive) blob(digest v1.Hash) (file, bool) {
	f, ok := a.made[digest.Hex]
	return f, ok
}

func (a *archive) json(name string, into any) (bool, error) {
	f, ok := a.file(name)
	if !ok {
		return false, nil
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return false, fmt.Errorf("the archive's %s: %w", name, err)
	}
	return true, nil
}

// images of the archive. An archive of today's docker is both kinds at once:
// the OCI index is the better one, the names may be in the other.
func (a *archive) images() ([]foundImage, error) {
	var docker []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if _, err := a.json("manifest.json", &docker); err != nil {
		return nil, err
	}
	var index v1.IndexManifest
	isOCI, err := a.json("index.json", &index)
	if err != nil {
		return nil, err
	}
	if isOCI {
		var tags []string
		if len(docker) == 1 {
			tags = docker[0].RepoTags
		}
		if found := a.oci(index, tags); len(found) > 0 {
			return found, nil
		}
	}
	var found []foundImage
	for _, m := range docker {
		root, err := a.manifest(m.Config, m.Layers)
		if err != nil {
			return nil, err
		}
		if len(m.RepoTags) == 0 {
			found = append(found, foundImage{"", root})
		}
		for _, tag := range m.RepoTags {
			found = append(found, foundImage{tag, root})
		}
	}
	return found, nil
}

func (a *archive) oci(index v1.IndexManifest, tags []string) (found []foundImage) {
	for _, d := range index.Manifests {
		root, ok := a.complete(d)
		if !ok {
			continue
		}
		image := d.Annotations[nameAnnotation]
		if ref := d.Annotations["org.opencontainers.image.ref.name"]; image == "" && strings.ContainsAny(ref, ":/") {
			image = ref // a bare tag names no image
		}
		root.Annotations = nil
		if image == "" && len(index.Manifests) == 1 && len(tags) > 0 {
			for _, tag := range tags {
				found = append(found, foundImage{tag, root})
			}
			continue
		}
		found = append(found, foundImage{image, root})
	}
	return found
}

// complete returns the descriptor if all it refers to is in the archive, or, of
// an index some of whose platforms are missing, the manifest for this machine's.
func (a *archive) complete(d v1.Descriptor) (v1.Descriptor, bool) {
	f, ok := a.blob(d.Digest)
	if !ok {
		return d, false
	}
	if !d.MediaType.IsImage() && !d.MediaType.IsIndex() {
		return d, true
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return d, false
	}
	all, mine := true, v1.Descriptor{}
	for _, child := range children(data) {
		if _, ok := a.complete(child); !ok {
			all = false
		} else if child.Platform != nil && child.Platform.OS == "linux" && child.Platform.Architecture == runtime.GOARCH {
			mine = child
		}
	}
	if all {
		return d, true
	}
	return mine, mine.Size > 0
}

// manifest of an image that a docker archive describes by file names.
func (a *archive) manifest(config string, layers []string) (v1.Descriptor, error) {
	c, ok := a.file(config)
	if !ok {
		return v1.Descriptor{}, fmt.Errorf("the archive lacks the image's configuration %s", config)
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: c.descriptor(types.OCIConfigJSON)}
	for _, layer := range layers {
		l, ok := a.file(layer)
		if !ok {
			return v1.Descriptor{}, fmt.Errorf("the archive lacks layer %s", layer)
		}
		m.Layers = append(m.Layers, l.descriptor(l.layerType()))
	}
	data, err := json.Marshal(m)
	if err != nil {
		return v1.Descriptor{}, err
	}
	f, err := a.write(bytes.NewReader(data))
	return f.descriptor(types.OCIManifestSchema1), err
}

func (f file) descriptor(t types.MediaType) v1.Descriptor {
	return v1.Descriptor{MediaType: t, Size: f.size, Digest: f.digest}
}

func (f file) layerType() types.MediaType {
	switch {
	case f.head[0] == 0x1f && f.head[1] == 0x8b:
		return types.OCILayer
	case f.head == [4]byte{0x28, 0xb5, 0x2f, 0xfd}:
		return types.OCILayerZStd
	}
	return types.OCIUncompressedLayer
}

// ImportFile imports an archive from a file.
func (s *Store) ImportFile(name, as string) ([]Image, error) {
	f, err := os.Open(filepath.Clean(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return s.Import(f, as)
}
