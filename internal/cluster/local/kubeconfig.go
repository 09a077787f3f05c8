package local

import (
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// merge a cluster's kubeconfig into the user's under the name of its context.
// The current context stays unless there was none.
func merge(context, kubeconfig string) (file string, err error) {
	ours, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return "", err
	}
	path := clientcmd.NewDefaultPathOptions()
	all, err := path.GetStartingConfig()
	if err != nil {
		return "", err
	}
	for _, c := range ours.Contexts {
		cluster, user := ours.Clusters[c.Cluster].DeepCopy(), ours.AuthInfos[c.AuthInfo].DeepCopy()
		cluster.LocationOfOrigin, user.LocationOfOrigin = "", "" // or they would be written back to where they come from
		old := all.Contexts[context]
		if old == nil {
			old = &clientcmdapi.Context{} // else the user's choice of a namespace stays
		}
		old.Cluster, old.AuthInfo = context, context
		all.Clusters[context], all.AuthInfos[context], all.Contexts[context] = cluster, user, old
	}
	if all.CurrentContext == "" {
		all.CurrentContext = context
	}
	return path.GetDefaultFilename(), clientcmd.ModifyConfig(path, *all, false)
}

// unmerge takes a context, and cluster and user of its name, out of the user's
// kubeconfig.
func unmerge(context string) error {
	path := clientcmd.NewDefaultPathOptions()
	all, err := path.GetStartingConfig()
	if err != nil {
		return err
	}
	_, a := all.Contexts[context]
	_, b := all.Clusters[context]
	if !a && !b {
		return nil
	}
	delete(all.Contexts, context)
	delete(all.Clusters, context)
	delete(all.AuthInfos, context)
	if all.CurrentContext == context {
		all.CurrentContext = ""
	}
	return clientcmd.ModifyConfig(path, *all, false)
}
