package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/proa-dev/proa/internal/cluster"
	"github.com/proa-dev/proa/internal/scheduler"
	"github.com/proa-dev/proa/internal/simulate"
)

// schedulerFlags of a server.
type schedulerFlags struct{ config string }

func (f *schedulerFlags) add(fs *pflag.FlagSet, s *cluster.Server) {
	fs.StringVar(&f.config, "scheduler-config", "", "file with a KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1)")
	fs.BoolVar(&s.DisableScheduler, "disable-scheduler", false, "give no pods to nodes: another scheduler does")
}

func (f *schedulerFlags) fill(s *cluster.Server) (err error) {
	s.Scheduler, err = readSchedulerConfig(f.config)
	return err
}

// readSchedulerConfig of a file; nil for none.
func readSchedulerConfig(file string) (*scheduler.Configuration, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	c, err := scheduler.ParseConfiguration(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

// scheduler explains decisions.
func (a *app) scheduler() *cobra.Command {
	var kubeconfig, context, namespace, config string
	explain := &cobra.Command{
		Use: "explain POD", Short: "Where a pod would go now, and why: each node's refusal or score", Args: exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := readSchedulerConfig(config)
			if err != nil {
				return err
			}
			e, err := simulate.Explain(c.Context(), kubeconfig, context, namespace, args[0], cfg)
			if err != nil {
				return err
			}
			return a.print(e, func(w io.Writer) { printExplanation(w, e) })
		},
	}
	clusterFlags(explain, &kubeconfig, &context)
	explain.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the pod; nothing = the context's")
	explain.Flags().StringVar(&config, "config", "", "file with the KubeSchedulerConfiguration that the cluster's scheduler has; nothing = the usual")
	c := &cobra.Command{Use: "scheduler", Short: "Decisions of the scheduler, explained"}
	c.AddCommand(explain)
	return c
}

func printExplanation(w io.Writer, e *scheduler.Explanation) {
	switch {
	case e.Bound != "" && e.Bound == e.Node:
		fmt.Fprintf(w, "%s is on %s, and would go there again\n\n", e.Pod, e.Bound)
	case e.Bound != "":
		fmt.Fprintf(w, "%s is on %s; now it would go to %s%s\n\n", e.Pod, e.Bound, e.Node, e.Message)
	case e.Node != "":
		fmt.Fprintf(w, "%s would go to %s\n\n", e.Pod, e.Node)
	default:
		fmt.Fprintf(w, "%s can go nowhere: %s\n\n", e.Pod, e.Message)
	}
	nodes := slices.Clone(e.Nodes)
	slices.SortStableFunc(nodes, func(a, b scheduler.NodeExplanation) int { return int(b.Total - a.Total) })
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NODE\tSCORE\tWHY")
	for _, n := range nodes {
		if n.Filter != "" {
			fmt.Fprintf(t, "%s\t-\t%s: %s\n", n.Node, n.Filter, strings.Join(n.Reasons, ", "))
			continue
		}
		var parts []string
		for _, s := range n.Scores {
			if s.Score*s.Weight != 0 {
				parts = append(parts, fmt.Sprintf("%s %d×%d", s.Plugin, s.Score, s.Weight))
			}
		}
		fmt.Fprintf(t, "%s\t%d\t%s\n", n.Node, n.Total, strings.Join(parts, " + "))
	}
	_ = t.Flush()
}
