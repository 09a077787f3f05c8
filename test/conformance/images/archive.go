package images

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"runtime"
)

// Config is what an image runs; the field names are those of the image format.
type Config struct {
	User       string   `json:"User,omitempty"`
	Env        []string `json:"Env,omitempty"`
	Entrypoint []string `json:"Entrypoint,omitempty"`
	Cmd        []string `json:"Cmd,omitempty"`
	WorkingDir string   `json:"WorkingDir,omitempty"`
}

// Image is one to be made.
type Image struct {
	Name   string // REPOSITORY:TAG
	Config Config
	Layers []string // names of trees, the lowest first
}

type layer struct{ digest, file string }

// path of a layer in an archive.
func (l layer) path() string { return l.digest + "/layer.tar" }

// manifest is a line of a docker archive's manifest.json.
type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// imageConfig is the configuration file of an image, in the fields that a
// runtime needs.
type imageConfig struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Config       Config `json:"config"`
	RootFS       struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// archive is a docker archive in the making. What several images share is in it
// once.
type archive struct {
	out    *tar.Writer
	layers map[string]layer // by the name of the tree
	has    map[string]bool
	list   []manifest
}

func (a *archive) add(image Image) error {
	var c imageConfig
	c.Architecture, c.OS, c.Config, c.RootFS.Type = runtime.GOARCH, "linux", image.Config, "layers"
	c.Config.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, c.Config.Env...)
	m := manifest{RepoTags: []string{image.Name}}
	for _, name := range image.Layers {
		l := a.layers[name]
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, "sha256:"+l.digest)
		m.Layers = append(m.Layers, l.path())
		if err := a.file(l); err != nil {
			return err
		}
	}
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	m.Config = hex.EncodeToString(sum[:]) + ".json"
	a.list = append(a.list, m)
	return a.bytes(m.Config, data)
}

// close the archive with the list of its images.
func (a *archive) close() error {
	data, err := json.Marshal(a.list)
	if err != nil {
		return err
	}
	if err := a.bytes("manifest.json", data); err != nil {
		return err
	}
	return a.out.Close()
}

func (a *archive) bytes(name string, data []byte) error {
	if a.has[name] {
		return nil
	}
	a.has[name] = true
	if err := a.out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := a.out.Write(data)
	return err
}

func (a *archive) file(l layer) error {
	if a.has[l.path()] {
		return nil
	}
	a.has[l.path()] = true
	f, err := os.Open(l.file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := a.out.WriteHeader(&tar.Header{Name: l.path(), Mode: 0o644, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(a.out, f)
	return err
}
