package cli

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/proa-dev/proa/internal/cluster"
)

func (a *app) token() *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "Tokens with which nodes join"}
	c.AddCommand(a.tokenCreate(), a.tokenList(), a.tokenDelete())
	return c
}

func (a *app) tokenCreate() *cobra.Command {
	var o cluster.TokenOptions
	var kubeconfig string
	c := &cobra.Command{
		Use: "create", Short: "Make a token and print it",
		RunE: func(c *cobra.Command, _ []string) error {
			token, err := cluster.CreateToken(c.Context(), kubeconfig, o)
			if err != nil {
				return err
			}
			return a.print(map[string]string{"token": token}, func(w io.Writer) { fmt.Fprintln(w, token) })
		},
	}
	c.Flags().DurationVar(&o.TTL, "ttl", 24*time.Hour, "how long it is good; 0 = for ever")
	c.Flags().StringVar(&o.Description, "description", "", "what it is for")
	kubeconfigFlag(c, &kubeconfig)
	return c
}

func (a *app) tokenList() *cobra.Command {
	var kubeconfig string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the tokens, without their secrets",
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := cluster.Tokens(c.Context(), kubeconfig)
			if err != nil {
				return err
			}
			return a.print(all, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
				fmt.Fprintln(t, "TOKEN\tEXPIRES\tDESCRIPTION")
				for _, i := range all {
					fmt.Fprintf(t, "%s\t%s\t%s\n", i.ID, i.Expires, i.Description)
				}
				_ = t.Flush()
			})
		},
	}
	kubeconfigFlag(c, &kubeconfig)
	return c
}

func (a *app) tokenDelete() *cobra.Command {
	var kubeconfig string
	c := &cobra.Command{
		Use: "delete TOKEN", Short: "Revoke a token", Args: exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			return cluster.DeleteToken(c.Context(), kubeconfig, args[0])
		},
	}
	kubeconfigFlag(c, &kubeconfig)
	return c
}

func exactly(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("write it as: %s", c.UseLine())}
		}
		return nil
	}
}
