package cli

import (
	"github.com/spf13/pflag"

	"github.com/proa-dev/proa/internal/cluster"
)

// etcdFlags of a server: where its objects are kept, and how.
func etcdFlags(fs *pflag.FlagSet, e *cluster.Etcd) {
	fs.StringSliceVar(&e.Servers, "etcd-servers", nil, "URLs of an etcd to use, separated by commas; nothing = one inside")
	fs.StringVar(&e.CA, "etcd-cafile", "", "CA of --etcd-servers")
	fs.StringVar(&e.Cert, "etcd-certfile", "", "client certificate for --etcd-servers")
	fs.StringVar(&e.Key, "etcd-keyfile", "", "its key")
	fs.StringVar(&e.Prefix, "etcd-prefix", "/registry", "what all keys in etcd begin with")
	fs.Int64Var(&e.Quota, "quota-backend-bytes", 0, "bytes the etcd inside may keep before it takes no more; 0 = 8 GiB")
	fs.StringVar(&e.EncryptionFile, "encryption-provider-config", "", "file with an EncryptionConfiguration: how Secrets and others are encrypted in etcd")
	fs.BoolVar(&e.EncryptionReload, "encryption-provider-config-automatic-reload", false, "take over changes of that file without a restart")
}
