package admission

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/cache"
)

func amount(kv ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(kv); i += 2 {
		l[corev1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
	}
	return l
}

func quotaOf(name string, hard, used corev1.ResourceList) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{ObjectMeta: meta("ns", name), Spec: corev1.ResourceQuotaSpec{Hard: hard}, Status: corev1.ResourceQuotaStatus{Hard: hard, Used: used}}
}

func TestQuotasRefuseWhatIsTooMuch(t *testing.T) {
	w := newWorld(t, base(
		quotaOf("q", amount("pods", "2", "requests.cpu", "1"), amount("pods", "1", "requests.cpu", "800m")),
		quotaOf("maps", amount("count/configmaps", "1"), amount("count/configmaps", "1")))...)
	w.refused(w.create(aMap(nil)), apierrors.IsForbidden, `exceeded quota: maps, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1`)
	w.refused(w.create(aPod()), apierrors.IsForbidden, `failed quota: q: must specify requests.cpu for: c`)
	asks := aPod(func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = amount("cpu", "300m") })
	w.refused(w.create(asks), apierrors.IsForbidden, `exceeded quota: q, requested: requests.cpu=300m, used: requests.cpu=800m, limited: requests.cpu=1`)
	w = newWorld(t, base(quotaOf("new", amount("configmaps", "1"), nil))...)
	w.refused(w.create(aMap(nil)), apierrors.IsForbidden, "status unknown for quota: new, resources: configmaps")
}

func TestQuotasCountDevices(t *testing.T) {
	const devices, extended = "gold.deviceclass.resource.k8s.io/devices", "requests.example.com/gold"
	class := &resourcev1.DeviceClass{ObjectMeta: meta("", "gold"), Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: ptr.To("example.com/gold")}}
	claim := func(n int64) *resourcev1.ResourceClaim {
		return &resourcev1.ResourceClaim{ObjectMeta: meta("ns", "c"), Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
			{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gold", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: n}},
		}}}}
	}
	w := newWorld(t, base(class, quotaOf("q", amount(devices, "3"), amount(devices, "1")))...)
	w.refused(w.create(claim(3)), apierrors.IsForbidden, `exceeded quota: q, requested: gold.deviceclass.resource.k8s.io/devices=3, used: gold.deviceclass.resource.k8s.io/devices=1, limited: gold.deviceclass.resource.k8s.io/devices=3`)
	w = newWorld(t, base(class, quotaOf("q", amount(extended, "3"), amount(extended, "2")))...)
	w.refused(w.create(claim(2)), apierrors.IsForbidden, `exceeded quota: q, requested: requests.example.com/gold=2, used: requests.example.com/gold=2, limited: requests.example.com/gold=3`)
}

// quotaReader is one quota that changes.
type quotaReader struct {
	cache.Reader
	now atomic.Pointer[corev1.ResourceQuota]
}

type quotaSnapshot struct {
	cache.Snapshot
	q *corev1.ResourceQuota
}

func (r *quotaReader) Snapshot() cache.Snapshot { return quotaSnapshot{nil, r.now.Load()} }
func (quotaSnapshot) Count(string) int          { return 1 }
func (s quotaSnapshot) Ascend(_, _, _ string, visit func(*cache.Item) bool) {
	visit(&cache.Item{Object: s.q})
}

func TestWritesTogetherDoNotExceedAQuota(t *testing.T) {
	r := &quotaReader{}
	q := quotaOf("q", amount("configmaps", "5"), amount("configmaps", "0"))
	q.ResourceVersion = "1"
	r.now.Store(q)
	charge := func(_ context.Context, q *corev1.ResourceQuota) error {
		was := r.now.Load()
		if was.ResourceVersion != q.ResourceVersion {
			return apierrors.NewConflict(schema.GroupResource{Resource: "resourcequotas"}, "q", nil)
		}
		n, _ := strconv.Atoi(q.ResourceVersion)
		q.ResourceVersion = strconv.Itoa(n + 1)
		if !r.now.CompareAndSwap(was, q) {
			return apierrors.NewConflict(schema.GroupResource{Resource: "resourcequotas"}, "q", nil)
		}
		return nil
	}
	k := &api.Kind{GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ConfigMap"), Resource: "configmaps"}
	var passed atomic.Int32
	var wg sync.WaitGroup
	for server := range 2 { // two servers that share nothing but the store
		p := &ResourceQuota{Quotas: cache.Typed[*corev1.ResourceQuota]{Reader: r}, Charge: charge}
		for range 10 {
			wg.Go(func() {
				c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c" + strconv.Itoa(server)}}
				if p.Validate(t.Context(), &Write{Operation: Create, Kind: api.Served{Kind: k}, Namespace: "ns", Name: c.Name, Object: c}) == nil {
					passed.Add(1)
				}
			})
		}
	}
	wg.Wait()
	if passed.Load() != 5 {
		t.Errorf("%d passed", passed.Load())
	}
}
