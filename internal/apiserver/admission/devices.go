package admission

import (
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/proa-dev/proa/internal/api/index"
	"github.com/proa-dev/proa/internal/cache"
)

// devices implements quota.Devices from the cache.
type devices struct {
	classes cache.Typed[*resourcev1.DeviceClass]
	pods    cache.Typed[*corev1.Pod]
	claims  cache.Typed[*resourcev1.ResourceClaim]
}

func (d devices) Classes(visit func(*resourcev1.DeviceClass) bool) { d.classes.Each("", visit) }

func (d devices) Pod(namespace, name string) *corev1.Pod {
	p, _ := d.pods.Get(namespace, name)
	return p
}

func (d devices) OwnedBy(p *corev1.Pod) (all []*resourcev1.ResourceClaim) {
	d.claims.ByIndex(index.Owners, string(p.UID), func(c *resourcev1.ResourceClaim) bool {
		all = append(all, c)
		return true
	})
	return all
}
