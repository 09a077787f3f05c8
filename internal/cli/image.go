package cli

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/proa-dev/proa/internal/cluster"
)

func (a *app) image() *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "Images of the cluster's own: no registry needed"}
	c.AddCommand(a.imageImport(), a.imageList(), a.imageRemove())
	return c
}

func (a *app) imageImport() *cobra.Command {
	var kubeconfig, context, name string
	c := &cobra.Command{
		Use: "import FILE|-", Short: "Put the images of a docker or OCI archive into the cluster, for all its nodes", Args: exactly(1),
		Example: "  docker save weather-service:1.0 | proa image import -",
		RunE: func(c *cobra.Command, args []string) error {
			in := a.in
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			images, err := cluster.NewImages(kubeconfig, context)
			if err != nil {
				return err
			}
			started := time.Now()
			got, err := images.Import(c.Context(), in, name)
			if err != nil {
				return err
			}
			return a.print(got, func(w io.Writer) {
				for _, i := range got {
					fmt.Fprintf(w, "%s (%s) is in the cluster after %.1f s\n", i.Name, size(i.Size), time.Since(started).Seconds())
				}
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "REPOSITORY:TAG to call the image; nothing = what the archive says")
	clusterFlags(c, &kubeconfig, &context)
	return c
}

func (a *app) imageList() *cobra.Command {
	var kubeconfig, context string
	c := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the images that were imported",
		RunE: func(c *cobra.Command, _ []string) error {
			images, err := cluster.NewImages(kubeconfig, context)
			if err != nil {
				return err
			}
			all, err := images.List(c.Context())
			if err != nil {
				return err
			}
			return a.print(all, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
				fmt.Fprintln(t, "IMAGE\tDIGEST\tSIZE\tIMPORTED")
				for _, i := range all {
					fmt.Fprintf(t, "%s\t%.19s\t%s\t%s\n", i.Name, i.Digest, size(i.Size), i.Imported.Local().Format(time.DateTime))
				}
				_ = t.Flush()
			})
		},
	}
	clusterFlags(c, &kubeconfig, &context)
	return c
}

func (a *app) imageRemove() *cobra.Command {
	var kubeconfig, context string
	c := &cobra.Command{
		Use: "rm IMAGE", Aliases: []string{"remove"}, Short: "Take an imported image out of the cluster", Args: exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			images, err := cluster.NewImages(kubeconfig, context)
			if err != nil {
				return err
			}
			return images.Remove(c.Context(), args[0])
		},
	}
	clusterFlags(c, &kubeconfig, &context)
	return c
}

func clusterFlags(c *cobra.Command, kubeconfig, context *string) {
	kubeconfigFlag(c, kubeconfig)
	c.Flags().StringVar(context, "context", "", "context of the kubeconfig")
}

// size in bytes, for people.
func size(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	f, u := float64(n), 0
	for f >= 1000 && u < len(units)-1 {
		f, u = f/1000, u+1
	}
	if u == 0 || f >= 100 {
		return fmt.Sprintf("%.0f %s", f, units[u])
	}
	return fmt.Sprintf("%.1f %s", f, units[u])
}
