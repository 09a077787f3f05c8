package pki

import (
	"os"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Kubeconfig for one cluster, one user and one context, all of one name, with
// the user's certificate and key inside.
func Kubeconfig(name, server string, authority []byte, user *Leaf) (*clientcmdapi.Config, error) {
	crt, err := os.ReadFile(user.crtFile)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(user.keyFile)
	if err != nil {
		return nil, err
	}
	c := clientcmdapi.NewConfig()
	c.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: authority}
	c.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: crt, ClientKeyData: key}
	c.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	c.CurrentContext = name
	return c, nil
}

// WriteKubeconfig writes a kubeconfig in one step, readable by its owner alone.
func WriteKubeconfig(file string, c *clientcmdapi.Config) error {
	data, err := clientcmd.Write(*c)
	if err != nil {
		return err
	}
	return WriteFile(file, data, 0o600)
}
