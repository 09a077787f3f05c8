package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// needPackages installs the Debian packages that are missing, and says which.
func needPackages(ctx context.Context, names ...string) error {
	var missing []string
	for _, p := range names {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Status}", p).Output()
		if err != nil || !strings.Contains(string(out), "ok installed") {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	say("installing Debian packages: %s", strings.Join(missing, " "))
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get install %s: %w\n%s\nrun apt-get update, or install them by hand", strings.Join(missing, " "), err, out)
	}
	return nil
}
