package cluster

import (
	"cmp"
	"context"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/proa-dev/proa/internal/cluster/pki"
)

// TokenOptions of a join token.
type TokenOptions struct {
	TTL         time.Duration // 0 = for ever
	Description string
}

// TokenInfo says what is known of a join token without its secret.
type TokenInfo struct {
	ID          string `json:"id"`
	Description string `json:"description,omitempty"`
	Expires     string `json:"expires,omitempty"` // RFC 3339, "" = never
}

const tokenPrefix = "bootstrap-token-"

// CreateToken makes a join token and returns its text. It is kept as a Secret
// in kube-system, as kubeadm keeps its own.
func CreateToken(ctx context.Context, kubeconfig string, o TokenOptions) (string, error) {
	c, ca, err := admin(kubeconfig)
	if err != nil {
		return "", err
	}
	certs, err := pki.ParseCerts(ca)
	if err != nil {
		return "", err
	}
	t := pki.NewToken(&pki.Authority{Cert: certs[0]})
	data := map[string]string{
		"token-id": t.ID, "token-secret": t.Secret, "description": o.Description,
		"usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
		"auth-extra-groups": "system:bootstrappers:proa:nodes",
	}
	if o.TTL > 0 {
		data["expiration"] = time.Now().Add(o.TTL).UTC().Format(time.RFC3339)
	}
	_, err = c.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: tokenPrefix + t.ID},
		Type:       corev1.SecretTypeBootstrapToken,
		StringData: data,
	}, metav1.CreateOptions{})
	return t.String(), err
}

// Tokens there are.
func Tokens(ctx context.Context, kubeconfig string) ([]TokenInfo, error) {
	c, _, err := admin(kubeconfig)
	if err != nil {
		return nil, err
	}
	list, err := c.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeBootstrapToken)})
	if err != nil {
		return nil, err
	}
	var all []TokenInfo
	for _, s := range list.Items {
		all = append(all, TokenInfo{string(s.Data["token-id"]), string(s.Data["description"]), string(s.Data["expiration"])})
	}
	return all, nil
}

// DeleteToken revokes a token, given whole or by its first six characters.
func DeleteToken(ctx context.Context, kubeconfig, token string) error {
	c, _, err := admin(kubeconfig)
	if err != nil {
		return err
	}
	if t, err := pki.ParseToken(token); err == nil {
		token = t.ID
	}
	return c.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, tokenPrefix+token, metav1.DeleteOptions{})
}

// admin client of a kubeconfig, and its cluster's authority.
func admin(kubeconfig string) (*kubernetes.Clientset, []byte, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, nil, err
	}
	ca := config.CAData
	if len(ca) == 0 {
		if ca, err = os.ReadFile(cmp.Or(config.CAFile, os.DevNull)); err != nil {
			return nil, nil, err
		}
	}
	c, err := kubernetes.NewForConfig(config)
	return c, ca, err
}
