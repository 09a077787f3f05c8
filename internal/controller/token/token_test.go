package token_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/token"
	"github.com/proa-dev/proa/test/controllertest"
)

func TestConverges(t *testing.T) {
	c := controllertest.New(t, 20)
	c.Run(token.New(c.Informers, token.Config{
		Sign:   func(sa *corev1.ServiceAccount, s *corev1.Secret) (string, error) { return sa.Name + "." + s.Name, nil },
		RootCA: func() []byte { return []byte("CA") },
	}, controllertest.Log()))
	controllertest.Create(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}})
	controllertest.Create(c, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"}})
	controllertest.Create(c, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "t", Namespace: "default", Annotations: map[string]string{corev1.ServiceAccountNameKey: "a"}}, Type: corev1.SecretTypeServiceAccountToken})
	for name, when := range map[string]time.Time{"old": time.Now().Add(-time.Minute), "new": time.Now().Add(time.Hour)} {
		controllertest.Create(c, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "kube-system"}, Type: "bootstrap.kubernetes.io/token",
			Data: map[string][]byte{"expiration": []byte(when.Format(time.RFC3339))}})
	}
	secret := func(ns, name string) *corev1.Secret { return controllertest.Get[*corev1.Secret](c, ns, name) }
	c.Until("filled", func() bool {
		s := secret("default", "t")
		return string(s.Data["token"]) == "a.t" && string(s.Data["ca.crt"]) == "CA" && string(s.Data["namespace"]) == "default"
	})
	c.Until("expired", func() bool { return secret("kube-system", "old") == nil && secret("kube-system", "new") != nil })
	if err := client.For[*corev1.ServiceAccount](c.Conn).Delete(t.Context(), "default", "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.Until("gone with its account", func() bool { return secret("default", "t") == nil })
}
