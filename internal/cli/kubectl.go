package cli

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
)

// kubernetesVersion that Proa is to its clients.
const kubernetesVersion = "v1.36.3"

// kubectl is upstream's, as a library. It prints its own errors, and signals end it
// or are caught by the command itself: what proa's own commands end by, a context,
// would leave a proxy or a watch running.
func (a *app) kubectl(args []string) int {
	signal.Reset(os.Interrupt, syscall.SIGTERM)
	c := cmd.NewDefaultKubectlCommandWithArgs(cmd.KubectlOptions{
		PluginHandler: cmd.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes),
		Arguments:     args,
		ConfigFlags:   genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50),
		IOStreams:     genericiooptions.IOStreams{In: a.in, Out: a.out, ErrOut: a.errOut},
	})
	c.Use = "kubectl"
	c.SetArgs(args[1:])
	return cli.Run(c)
}

// kubectlHelp is what "proa --help" shows; Main calls kubectl before it is asked.
func (a *app) kubectlHelp() *cobra.Command {
	return &cobra.Command{
		Use: "kubectl …", Short: "kubectl " + kubernetesVersion + " itself", DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error { return nil },
	}
}
