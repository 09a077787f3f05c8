package cli

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/proa-dev/proa/internal/cluster"
	"github.com/proa-dev/proa/internal/cluster/local"
)

// etcdFlags of a server: where its objects are kept, and how.
func etcdFlags(fs *pflag.FlagSet, e *cluster.Etcd) {
	fs.StringSliceVar(&e.Servers, "etcd-servers", nil, "URLs of an etcd to use, separated by commas; nothing = one inside")
	fs.StringVar(&e.CA, "etcd-cafile", "", "CA of --etcd-servers")
	fs.StringVar(&e.Cert, "etcd-certfile", "", "client certificate for --etcd-servers")
	fs.StringVar(&e.Key, "etcd-keyfile", "", "its key")
	fs.StringVar(&e.Prefix, "etcd-prefix", "/registry", "what all keys in etcd begin with")
	fs.Int64Var(&e.Quota, "quota-backend-bytes", 0, "bytes the etcd inside may keep before it takes no more; 0 = 8 GiB")
	fs.StringVar(&e.Snapshots.Schedule, "etcd-snapshot-schedule-cron", "", "when to save snapshots, as cron writes it (\"0 */12 * * *\"); nothing = never")
	fs.IntVar(&e.Snapshots.Retention, "etcd-snapshot-retention", 5, "how many of them stay")
	fs.StringVar(&e.Snapshots.Dir, "etcd-snapshot-dir", "", "where to; nothing = DATA-DIR/snapshots")
	fs.StringVar(&e.EncryptionFile, "encryption-provider-config", "", "file with an EncryptionConfiguration: how Secrets and others are encrypted in etcd")
	fs.BoolVar(&e.EncryptionReload, "encryption-provider-config-automatic-reload", false, "take over changes of that file without a restart")
}

func (a *app) etcd() *cobra.Command {
	c := &cobra.Command{Use: "etcd", Short: "What the cluster keeps: save it, and make a cluster of what was saved"}
	snapshots := &cobra.Command{Use: "snapshot", Short: "Save everything the cluster keeps to a file, and restore it"}
	snapshots.AddCommand(a.snapshotSave(), a.snapshotRestore(), a.snapshotStatus())
	c.AddCommand(snapshots)
	return c
}

func (a *app) snapshotSave() *cobra.Command {
	var kubeconfig, context string
	c := &cobra.Command{
		Use: "save FILE", Short: "Save a running cluster, as etcdctl would", Args: exactly(1),
		Long: `Save everything a running cluster keeps to a file, in the form of "etcdctl snapshot save".
What is not in it: the certificates and keys in DATA-DIR/pki, and imported images.`,
		RunE: func(c *cobra.Command, args []string) error {
			st, err := cluster.SaveSnapshot(c.Context(), kubeconfig, context, args[0])
			if err != nil {
				return err
			}
			return a.print(st, func(w io.Writer) {
				fmt.Fprintf(w, "%s: revision %d, %d keys, %s\n", args[0], st.Revision, st.TotalKeys, size(st.TotalSize))
			})
		},
	}
	clusterFlags(c, &kubeconfig, &context)
	return c
}

func (a *app) snapshotStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status FILE", Short: "Say what is in a snapshot, and whether it is whole", Args: exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			st, err := cluster.CheckSnapshot(args[0])
			if err != nil {
				return err
			}
			return a.print(st, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
				fmt.Fprintln(t, "HASH\tREVISION\tTOTAL KEYS\tTOTAL SIZE\tSTORAGE VERSION")
				fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\n", st.Hash, st.Revision, st.TotalKeys, size(st.TotalSize), st.Version)
				_ = t.Flush()
			})
		},
	}
}

func (a *app) snapshotRestore() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "restore FILE", Short: "Make a server's data folder from a snapshot of any Kubernetes cluster", Args: exactly(1),
		Long: `Make the store in a server's data folder from a snapshot: of Proa, or of any cluster whose etcd was
saved (kubeadm, k3s with etcd). "proa server" starts from the folder, and "proa up" from ` + local.Root + `/NAME.
Nothing is replaced: DATA-DIR/etcd must not be there, or be empty.

What the old cluster had besides its etcd has to be brought along by hand, to DATA-DIR/pki: ca.crt and
ca.key, front-proxy-ca.crt and .key, and sa.key, with which tokens of service accounts are signed; and the
address ranges, by the flags of "proa server". Resource versions go on far above those in the snapshot, so
that clients who remember later ones read everything again.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := cluster.RestoreSnapshot(args[0], dir); err != nil {
				return err
			}
			return a.print(map[string]string{"dataDir": dir}, func(w io.Writer) {
				fmt.Fprintf(w, "%s is restored: start it with \"proa server --data-dir %s\"\n", dir, dir)
			})
		},
	}
	c.Flags().StringVar(&dir, "data-dir", local.Root+"/server", "folder of the server")
	return c
}
