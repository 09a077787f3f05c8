// Proa is Kubernetes in one program: server, node, and the commands around them.
package main

import (
	_ "github.com/proa-dev/proa/internal/cli/translations" // before kubectl's packages; see there

	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/proa-dev/proa/internal/cli"
)

// version is set when the program is built.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Main(ctx, version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
