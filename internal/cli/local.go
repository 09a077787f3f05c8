package cli

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/proa-dev/proa/internal/cluster"
	"github.com/proa-dev/proa/internal/cluster/local"
)

func nameFlag(c *cobra.Command, to *string) {
	c.Flags().StringVar(to, "name", cluster.DefaultName, "of the cluster: several can run side by side")
}

func (a *app) up() *cobra.Command {
	var o local.Options
	c := &cobra.Command{
		Use: "up", Short: "Start a cluster on this machine in the background, and make it if there is none",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := local.CheckName(o.Name); err != nil {
				return usageError{err}
			}
			var err error
			if o.Program, err = program(); err != nil {
				return err
			}
			started := time.Now()
			o.Say = a.say
			s, err := local.Up(c.Context(), o)
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) {
				fmt.Fprintf(w, "The cluster %s is ready after %.1f s. Ingresses answer at %s.\n", s.Name, time.Since(started).Seconds(), s.Ingress)
				fmt.Fprintf(w, "kubectl --context %s get nodes    (or: proa kubectl …; kubeconfig: %s)\n", s.Context, s.Kubeconfig)
			})
		},
	}
	nameFlag(c, &o.Name)
	c.Flags().StringVar(&o.DataDir, "data-dir", "", "folder the cluster is kept in; nothing = "+local.Root+"/NAME")
	c.Flags().IntVar(&o.Nodes, "nodes", 0, "how many nodes; those after the first are network namespaces of this machine")
	c.Flags().IntVar(&o.HTTPPort, "http-port", 0, "port on which Ingresses answer HTTP; 0 = 80, or a free one")
	c.Flags().IntVar(&o.HTTPSPort, "https-port", 0, "port on which Ingresses answer HTTPS; 0 = 443, or a free one")
	c.Flags().IntVar(&o.APIPort, "api-port", 0, "port of the API; 0 = 6443, or a free one")
	c.Flags().StringVar(&o.RuntimeDir, "runtime-dir", "", "folder with containerd, its shim, runc and the CNI plugins; nothing = that of proa")
	return c
}

// found loads a cluster, or says that there is none.
func found(name string) (*local.Spec, error) {
	s, err := local.Load(name)
	if err == nil && s == nil {
		err = fmt.Errorf(`there is no cluster %q on this machine: "proa up --name %s" makes it`, name, name)
	}
	return s, err
}

func (a *app) status() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use: "status", Short: "Say how the clusters of this machine are",
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := local.All()
			if err != nil {
				return err
			}
			if name != "" {
				s, err := found(name)
				if err != nil {
					return err
				}
				all = []*local.Spec{s}
			}
			list := []*local.Status{}
			for _, s := range all {
				st, err := s.Status(c.Context())
				if err != nil {
					return err
				}
				list = append(list, st)
			}
			return a.print(list, func(w io.Writer) { printStatus(w, list) })
		},
	}
	c.Flags().StringVar(&name, "name", "", "of one cluster; nothing = all")
	return c
}

func printStatus(w io.Writer, list []*local.Status) {
	if len(list) == 0 {
		fmt.Fprintln(w, `There is no cluster on this machine: "proa up" makes one.`)
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATE\tNODES\tAPI\tINGRESS\tCONTEXT")
	for _, s := range list {
		ready := 0
		for _, n := range s.Nodes {
			if n.Ready {
				ready++
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%d/%d ready\t%s\t%s\t%s\n", s.Name, s.State, ready, len(s.Nodes), s.Server, s.Ingress, s.Context)
	}
	_ = t.Flush()
}

func (a *app) down() *cobra.Command {
	return a.ending("down", "Stop a cluster of this machine; what is in it stays for the next up", "stopped",
		func(s *local.Spec, c *cobra.Command, program, runtimeDir string) error {
			return s.Down(c.Context(), program, runtimeDir, a.say)
		})
}

func (a *app) delete() *cobra.Command {
	return a.ending("delete", "Stop a cluster of this machine and remove it, without a trace", "deleted",
		func(s *local.Spec, c *cobra.Command, program, runtimeDir string) error {
			return s.Delete(c.Context(), program, runtimeDir, a.say)
		})
}

func (a *app) ending(use, short, done string, end func(s *local.Spec, c *cobra.Command, program, runtimeDir string) error) *cobra.Command {
	var name, runtimeDir string
	c := &cobra.Command{
		Use: use, Short: short,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := found(name)
			if err != nil {
				return err
			}
			self, err := program()
			if err != nil {
				return err
			}
			if err := end(s, c, self, runtimeDir); err != nil {
				return err
			}
			return a.print(map[string]string{"name": name, "state": done}, func(w io.Writer) { fmt.Fprintf(w, "The cluster %s is %s.\n", name, done) })
		},
	}
	nameFlag(c, &name)
	c.Flags().StringVar(&runtimeDir, "runtime-dir", "", "folder with containerd and runc; nothing = that of proa")
	return c
}
