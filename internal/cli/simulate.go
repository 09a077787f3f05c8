package cli

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/proa-dev/proa/internal/simulate"
)

func (a *app) simulate() *cobra.Command {
	var cfg simulate.Config
	var nodesFile, configFile string
	var nodes int
	var files []string
	c := &cobra.Command{
		Use: "simulate", Short: "What fits where on a cluster that does not exist",
		Long: `What fits where on a cluster that does not exist: nodes from a file of shapes, the
real API server in memory, the real controllers and the real scheduler.

A file of shapes:

  nodes:
  - name: small
    count: 100
    allocatable: {cpu: "4", memory: 16Gi, pods: "110"}
    zones: [a, b, c]
    labels: {disk: ssd}
    taints: [{key: gpu, effect: NoSchedule}]`,
		Example: "  proa simulate --nodes-file shapes.yaml -f deployment.yaml\n  proa simulate --nodes 5000 --pods 30000 --direct",
		RunE: func(c *cobra.Command, _ []string) error {
			cfg.Shapes = simulate.Uniform(nodes)
			if nodesFile != "" {
				text, err := os.ReadFile(nodesFile)
				if err != nil {
					return err
				}
				if cfg.Shapes, err = simulate.ReadShapes(text); err != nil {
					return fmt.Errorf("%s: %w", nodesFile, err)
				}
			}
			var err error
			if cfg.Scheduler, err = readSchedulerConfig(configFile); err != nil {
				return err
			}
			for _, name := range files {
				if err := a.readManifest(&cfg, name); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			r, err := simulate.Run(c.Context(), cfg)
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) { printSimulation(w, r) })
		},
	}
	f := c.Flags()
	f.StringVar(&nodesFile, "nodes-file", "", "file of node shapes")
	f.IntVar(&nodes, "nodes", 10, "without a file: this many nodes of 32 CPUs and 256 Gi in three zones")
	f.StringArrayVarP(&files, "filename", "f", nil, "manifests of what is to run; - = standard input")
	f.IntVar(&cfg.Pods, "pods", 0, "besides: this many pods of 100m CPU and 500 Mi")
	f.BoolVar(&cfg.Direct, "direct", false, "decide alone, without API server and controllers: manifests may then only hold Pods")
	f.Uint64Var(&cfg.Seed, "seed", 0, "which of equal nodes are taken")
	f.DurationVar(&cfg.Settle, "settle", time.Second, "how long nothing may happen before the answer is final")
	f.StringVar(&configFile, "config", "", "file with a KubeSchedulerConfiguration")
	return c
}

func (a *app) readManifest(cfg *simulate.Config, name string) error {
	in := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	objects, err := simulate.Read(in)
	cfg.Objects = append(cfg.Objects, objects...)
	return err
}

func printSimulation(w io.Writer, r *simulate.Result) {
	fmt.Fprintf(w, "%d of %d pods placed on %d nodes in %.2f s: %.0f pods/s\n\n", r.Placed, r.Pods, r.Nodes, r.Seconds, r.PerSecond)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NODES\tCOUNT\tEMPTY\tPODS\tCPU\tMEMORY")
	for _, s := range r.Shapes {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%.1f %%\t%.1f %%\n", s.Name, s.Nodes, s.Empty, s.Pods, s.CPU, s.Memory)
	}
	fmt.Fprintln(t, "\nPODS OF\tPLACED\tNODES\t\t\t")
	for _, x := range r.Work {
		fmt.Fprintf(t, "%s\t%d/%d\t%d\t\t\t\n", x.Name, x.Placed, x.Pods, x.Nodes)
	}
	_ = t.Flush()
	for _, y := range r.Why {
		fmt.Fprintf(w, "\n%d pending: %s\n", y.Pods, y.Message)
	}
}
