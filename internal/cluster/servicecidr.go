package cluster

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// ensureServiceCIDR makes the object that shows the range given at the start
// (KEP-1880). It is ready from the start: the allocator has the range already.
func (c *Config) ensureServiceCIDR(ctx context.Context, conn client.Conn) error {
	want := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}}
	for _, p := range c.Server.ServiceCIDRs {
		want.Spec.CIDRs = append(want.Spec.CIDRs, p.String())
	}
	if err := ensure(ctx, conn, []api.Object{want}); err != nil {
		return err
	}
	ranges := client.For[*networkingv1.ServiceCIDR](conn)
	have, err := ranges.Get(ctx, "", want.Name)
	if err != nil || len(have.Status.Conditions) > 0 {
		return err
	}
	have = have.DeepCopy()
	have.Status.Conditions = []metav1.Condition{{
		Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue, LastTransitionTime: metav1.Now(),
		Reason: "", Message: "Kubernetes Service CIDR is ready",
	}}
	_, err = ranges.UpdateStatus(ctx, have)
	return err
}
