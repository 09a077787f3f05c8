package images

import (
	"context"
	_ "embed" // the configuration of nginx, the pause program
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

var (
	//go:embed files/nginx.conf
	nginxConf string
	//go:embed files/pause.c
	pauseSource string
)

// trees are the layers by name.
func (m *Maker) trees(ctx context.Context, d *debian) (map[string]Tree, error) {
	one := func(mode fs.FileMode, name, program string) Tree {
		t := Tree{}
		t.File(mode, name, m.program(program))
		return t
	}
	small, err := base(ctx, m.program("busybox"))
	if err != nil {
		return nil, fmt.Errorf("busybox --list: %w", err)
	}
	withTools, err1 := tools(d)
	withNginx, err2 := nginx(d)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	agnhost := one(0o755, "agnhost", "agnhost")
	agnhost.Link("agnhost-2", "agnhost")
	agnhost.Dir(0o755, "uploads", "var/registry")
	for _, f := range []string{"localhost.crt", "localhost.key"} {
		agnhost.File(0o644, f, filepath.Join(m.Source, "test/images/agnhost/porter", f))
	}
	pause := Tree{}
	program, err := m.pause(ctx)
	pause.File(0o755, "pause", program)
	trees := map[string]Tree{
		"base": small, "tools": withTools, "nginx": withNginx, "agnhost": agnhost, "pause": pause,
		"nnp":              one(0o755|fs.ModeSetuid|fs.ModeSetgid, "usr/local/bin/nnp", "nnp"),
		"sample-apiserver": one(0o755, "sample-apiserver", "sample-apiserver"),
		"etcd":             one(0o755, "usr/local/bin/etcd", "etcd"),
	}
	for _, pet := range []string{"kitten", "nautilus"} {
		t := Tree{}
		for _, f := range []string{pet + ".jpg", "data.json"} {
			t.File(0o644, f, filepath.Join(m.Source, "test/images", pet, "html", f))
		}
		trees[pet] = t
	}
	return trees, err
}

// pause compiles the pause program, which is C: one of Go would cost each pod a
// megabyte.
func (m *Maker) pause(ctx context.Context) (string, error) {
	source, out := filepath.Join(m.Dir, "pause.c"), filepath.Join(m.Dir, "pause")
	if err := os.WriteFile(source, []byte(pauseSource), 0o644); err != nil {
		return "", err
	}
	return out, run(ctx, m.Dir, "gcc", "-Os", "-static", "-s", "-o", out, source)
}
