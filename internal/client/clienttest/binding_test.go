package clienttest_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/apiserver"
	"github.com/proa-dev/proa/internal/apiserver/admission"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/local"
)

// doorkeeper refuses to bind the pod q, and gives others a label.
type doorkeeper struct{ asked chan *admission.Write }

func (doorkeeper) Name() string { return "doorkeeper" }

func (d doorkeeper) Admit(_ context.Context, w *admission.Write) error {
	b, ok := w.Body.(*corev1.Binding)
	if !ok {
		return nil
	}
	d.asked <- w
	if b.Name == "q" {
		return apierrors.NewForbidden(w.Kind.GroupResource(), b.Name, nil)
	}
	b.Labels = map[string]string{"zone": "of " + b.Target.Name}
	return nil
}

// TestBindingsAreAdmitted one by one, although they are stored together.
func TestBindingsAreAdmitted(t *testing.T) {
	d := doorkeeper{make(chan *admission.Write, 3)}
	_, cfg := server(t, func(c *apiserver.Config) { c.Admission = admission.NewChain(d) })
	c := local.New(cfg)
	pods, all := client.For[*corev1.Pod](c), []client.Binding{}
	for _, name := range []string{"p", "q", "r"} {
		if _, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}); err != nil {
			t.Fatal(err)
		}
		all = append(all, client.Binding{Namespace: "default", Name: name, Node: "n"})
	}
	errs := c.BindAll(t.Context(), all)
	for i, name := range []string{"p", "q", "r"} {
		p, err := pods.Get(t.Context(), "default", name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "q" {
			if !apierrors.IsForbidden(errs[i]) || p.Spec.NodeName != "" {
				t.Errorf("q: %v, on %q", errs[i], p.Spec.NodeName)
			}
		} else if errs[i] != nil || p.Spec.NodeName != "n" || p.Labels["zone"] != "of n" {
			t.Errorf("%s: %v, on %q, %v", name, errs[i], p.Spec.NodeName, p.Labels)
		}
		w := <-d.asked
		if w.User.Name != "test" || !w.User.InGroup(request.Masters) || w.Operation != admission.Create || w.Subresource != "binding" || w.Options == nil {
			t.Errorf("asked about %+v", w)
		}
	}
}
