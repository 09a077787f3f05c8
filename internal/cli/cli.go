// Package cli is what the commands of proa do and print.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/proa-dev/proa/internal/cluster/host"
)

// app is what all commands share.
type app struct {
	version     string
	in          io.Reader
	out, errOut io.Writer
	output      string // of -o: "", json, yaml
	verbosity   int
}

// Main runs a command line and returns the exit code: 0, 1 when it failed, 2
// when it was not understood.
func Main(ctx context.Context, version string, args []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{version: version, in: in, out: out, errOut: errOut}
	if len(args) > 0 && args[0] == "kubectl" {
		return a.kubectl(args)
	}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var problems host.Problems
	var usage usageError
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(errOut, "interrupted")
		return 130
	case errors.As(err, &problems):
		fmt.Fprintln(errOut, "proa: this machine cannot do it yet:")
		for _, p := range problems {
			fmt.Fprintf(errOut, "  %s\n    → %s\n", p.What, p.Do)
		}
		return 1
	case errors.As(err, &usage):
		fmt.Fprintf(errOut, "proa: %v\n", err)
		return 2
	}
	fmt.Fprintf(errOut, "proa: %v\n", err)
	return 1
}

// usageError is a command line that was not understood.
type usageError struct{ error }

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "proa",
		Short: "Kubernetes, small: one program that is the whole cluster",
		Long: `Proa is Kubernetes in one program.

  proa up            start a cluster on this machine, in the background
  proa kubectl …     work with it (any kubectl does)
  proa delete        remove it, without a trace`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       a.version,
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.errOut)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; %q shows the flags there are", err, c.CommandPath()+" --help")}
	})
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "", "how to print what was found: json or yaml; nothing = for people")
	root.PersistentFlags().IntVarP(&a.verbosity, "v", "v", 0, "how much to log: 0 = what matters, 4 = everything")
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		if a.output != "" && a.output != "json" && a.output != "yaml" && a.output != "wide" {
			return usageError{fmt.Errorf("-o %s: write json or yaml", a.output)}
		}
		return nil
	}
	root.AddGroup(&cobra.Group{ID: "local", Title: "A cluster on this machine:"}, &cobra.Group{ID: "node", Title: "Servers and nodes:"}, &cobra.Group{ID: "use", Title: "Using a cluster:"})
	in := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	in("local", a.up(), a.status(), a.down(), a.delete())
	in("node", a.server(), a.agent(), a.token(), a.etcd())
	in("use", a.kubectlHelp(), a.image(), a.scheduler(), a.simulate())
	root.AddCommand(a.versionCommand())
	onlyKnown(root)
	return root
}

// onlyKnown makes a command that is not known an error, not a help page.
func onlyKnown(c *cobra.Command) {
	for _, sub := range c.Commands() {
		onlyKnown(sub)
	}
	if c.Args == nil && c.RunE != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("%q takes no argument %q; %q says more", c.CommandPath(), args[0], c.CommandPath()+" --help")}
			}
			return nil
		}
	}
	if c.RunE == nil && c.Run == nil {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q; %q lists them", args[0], c.CommandPath()+" --help")}
			}
			return c.Help()
		}
	}
}

// logger to stderr.
func (a *app) logger() *slog.Logger {
	level := slog.LevelInfo
	if a.verbosity >= 4 {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.errOut, &slog.HandlerOptions{Level: level}))
}

// say a line of progress, where it does not disturb what is printed.
func (a *app) say(line string) { fmt.Fprintln(a.errOut, "· "+line) }

// print a value as -o wants it; people is what is printed without -o.
func (a *app) print(value any, people func(io.Writer)) error {
	switch a.output {
	case "json":
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(value)
	case "yaml":
		data, err := yaml.Marshal(value)
		if err != nil {
			return err
		}
		_, err = a.out.Write(data)
		return err
	}
	people(a.out)
	return nil
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the versions of proa and of the Kubernetes that it is",
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"proa": a.version, "kubernetes": kubernetesVersion}
			return a.print(v, func(w io.Writer) { fmt.Fprintf(w, "proa %s (Kubernetes %s)\n", a.version, kubernetesVersion) })
		},
	}
}

// kubeconfig to reach a cluster as its owner: the flag, else the environment
// and the usual files as kubectl takes them.
func kubeconfigFlag(c *cobra.Command, to *string) {
	c.Flags().StringVar(to, "kubeconfig", "", "kubeconfig of the cluster's owner (a server's is DATA-DIR/admin.kubeconfig)")
}

// program that is running: proa itself.
func program() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(self, " (deleted)"), nil
}
