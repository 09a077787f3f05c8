package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// busybox builds busybox from its source, as upstream configures it. Debian's
// own build will not do: its shell drops environment variables with names such
// as data-1 and prefers its own nc and ip to programs in PATH, and the tests
// compare ash's exact words.
func (d *debian) busybox(ctx context.Context, out string) error {
	if _, err := os.Stat(out); err == nil {
		return nil
	}
	src := filepath.Join(d.dir, "busybox")
	if err := errors.Join(os.RemoveAll(src), os.MkdirAll(src, 0o755)); err != nil {
		return err
	}
	if err := d.apt(ctx, src, "--only-source", "--download-only", "source", "busybox"); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(src, "busybox_*.orig.tar.*"))
	if err != nil || len(found) == 0 {
		return fmt.Errorf("the source package of busybox holds no busybox_*.orig.tar: %w", err)
	}
	for _, command := range [][]string{{"tar", "xf", found[0], "--strip-components=1"}, {"make", "defconfig"}} {
		if err := run(ctx, src, command[0], command[1:]...); err != nil {
			return err
		}
	}
	if err := configure(filepath.Join(src, ".config")); err != nil {
		return err
	}
	if err := run(ctx, src, "sh", "-c", "make oldconfig </dev/null && make -j"+strconv.Itoa(runtime.NumCPU())+" busybox"); err != nil {
		return err
	}
	return run(ctx, src, "cp", "busybox", out)
}

// configure a static program, without tc, which recent kernel headers have no
// queues for.
func configure(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	changed := strings.NewReplacer(
		"# CONFIG_STATIC is not set", "CONFIG_STATIC=y",
		"CONFIG_TC=y", "# CONFIG_TC is not set",
	).Replace(string(text))
	return os.WriteFile(file, []byte(changed), 0o644)
}
