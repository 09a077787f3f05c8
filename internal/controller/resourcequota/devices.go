package resourcequota

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/proa-dev/proa/internal/api/quota"
	"github.com/proa-dev/proa/internal/client"
)

// devices implements quota.Devices by lists of one moment.
type devices struct {
	classes []*resourcev1.DeviceClass
	pods    map[string]*corev1.Pod // of the quota's namespace
	claims  []*resourcev1.ResourceClaim
}

// devices that a quota may be about, nil if it is about none. They are listed rather
// than taken from informers, which might be behind the claims that are counted.
func (c *Controller) devices(ctx context.Context, q *corev1.ResourceQuota) (quota.Devices, error) {
	if !quota.AsksExtended(q) {
		return nil, nil
	}
	conn, d := c.quotas.Conn(), &devices{pods: map[string]*corev1.Pod{}}
	var err error
	if d.classes, err = client.For[*resourcev1.DeviceClass](conn).List(ctx, "", client.ListOptions{}); err != nil || len(d.classes) == 0 {
		return nil, err
	}
	if d.claims, err = client.For[*resourcev1.ResourceClaim](conn).List(ctx, q.Namespace, client.ListOptions{}); err != nil {
		return nil, err
	}
	pods, err := client.For[*corev1.Pod](conn).List(ctx, q.Namespace, client.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, p := range pods {
		d.pods[p.Name] = p
	}
	return d, nil
}

func (d *devices) Classes(visit func(*resourcev1.DeviceClass) bool) {
	for _, c := range d.classes {
		if !visit(c) {
			return
		}
	}
}

func (d *devices) Pod(_, name string) *corev1.Pod { return d.pods[name] }

func (d *devices) OwnedBy(p *corev1.Pod) (all []*resourcev1.ResourceClaim) {
	for _, c := range d.claims {
		for i := range c.OwnerReferences {
			if c.OwnerReferences[i].UID == p.UID {
				all = append(all, c)
			}
		}
	}
	return all
}
