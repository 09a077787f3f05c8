package local

import (
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

func write(t *testing.T, file, name string) {
	t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters[name] = &clientcmdapi.Cluster{Server: "https://" + name}
	c.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: name}
	c.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	c.CurrentContext = name
	if err := clientcmd.WriteToFile(*c, file); err != nil {
		t.Fatal(err)
	}
}

func TestKubeconfigIsMergedAndTakenOut(t *testing.T) {
	dir := t.TempDir()
	mine, ours := filepath.Join(dir, "config"), filepath.Join(dir, "admin.kubeconfig")
	t.Setenv("KUBECONFIG", mine)
	write(t, ours, "proa")
	for _, current := range []string{"", "work"} {
		want := "proa"
		if current != "" {
			write(t, mine, current)
			want = current
		}
		for range 2 {
			if _, err := merge("proa-x", ours); err != nil {
				t.Fatal(err)
			}
		}
		if current == "" {
			want = "proa-x"
		}
		c, err := clientcmd.LoadFromFile(mine)
		if err != nil {
			t.Fatal(err)
		}
		if c.CurrentContext != want {
			t.Errorf("current context %q, not %q", c.CurrentContext, want)
		}
		x := c.Contexts["proa-x"]
		if x == nil || c.Clusters[x.Cluster].Server != "https://proa" || c.AuthInfos[x.AuthInfo].Token != "proa" {
			t.Errorf("context %+v", x)
		}
		if err := unmerge("proa-x"); err != nil {
			t.Fatal(err)
		}
		c, err = clientcmd.LoadFromFile(mine)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Contexts)+len(c.Clusters)+len(c.AuthInfos) != 3*len(current)/4 || c.CurrentContext != current {
			t.Errorf("left: %+v", c)
		}
	}
}
