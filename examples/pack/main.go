// Pack makes an image from a folder or a single static program, as a docker
// archive: no registry and no container engine needed.
//
//	go run ./examples/pack --name twin:1 --program bin/twin --out twin.tar
package main

import (
	"archive/tar"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	var o options
	flag.StringVar(&o.name, "name", "", "REPOSITORY:TAG of the image")
	flag.StringVar(&o.root, "root", "", "folder that becomes the image's file system")
	flag.StringVar(&o.program, "program", "", "static program that becomes the image's only file")
	flag.StringVar(&o.user, "user", "65532", "user that the image runs as")
	flag.StringVar(&o.port, "port", "", "port that the image listens on")
	flag.StringVar(&o.out, "out", "", "archive to write")
	flag.Var(&o.env, "env", "NAME=VALUE, may be repeated")
	flag.Parse()
	o.command = flag.Args()
	if err := o.pack(); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

type options struct {
	name, root, program, user, port, out string
	env                                  list
	command                              []string
}

func (o *options) pack() error {
	tag, err := name.NewTag(o.name)
	if err != nil {
		return err
	}
	layerFile := o.out + ".layer"
	defer os.Remove(layerFile)
	if err := o.layer(layerFile); err != nil {
		return err
	}
	layer, err := tarball.LayerFromFile(layerFile)
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{User: o.user, Env: o.env, WorkingDir: "/", Cmd: o.command}
	if o.program != "" {
		config.Config.Entrypoint = []string{"/" + filepath.Base(o.program)}
	}
	if o.port != "" {
		config.Config.ExposedPorts = map[string]struct{}{o.port + "/tcp": {}}
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return err
	}
	return tarball.WriteToFile(o.out, tag, image)
}

func (o *options) layer(file string) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	t := tar.NewWriter(out)
	if o.program != "" {
		err = add(t, o.program, filepath.Base(o.program))
	} else {
		err = filepath.WalkDir(o.root, func(path string, d fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(o.root, path)
			if err != nil || rel == "." {
				return err
			}
			return add(t, path, rel)
		})
	}
	if err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	return out.Close()
}

func add(t *tar.Writer, path, as string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&(fs.ModeSocket|fs.ModeDevice) != 0 {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname = as, "", ""
	if info.IsDir() {
		h.Name += "/"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		h.Uid, h.Gid = int(st.Uid), int(st.Gid)
	}
	if err := t.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t, f)
	return err
}
