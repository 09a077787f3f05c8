package scheduler

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/structured"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// devices is what is known of devices, of claims to them, and of who has which
// (KEP-4381). What decisions allocated counts at once; what the API server says
// takes its place when it says so.
type devices struct {
	claims  map[string]*resourcev1.ResourceClaim // by namespace/name
	slices  map[string]*resourcev1.ResourceSlice
	classes map[string]*resourcev1.DeviceClass
	backed  map[corev1.ResourceName]*resourcev1.DeviceClass // extended resources that classes stand for
	mapped  uint64                                          // moves when backed does
	left    map[types.UID]*resourcev1.ResourceClaim         // for extended resources, by the pod they were made for

	pending map[types.UID]*pending                     // by claim
	counted map[types.UID]*resourcev1.AllocationResult // what is in taken, by claim
	taken   structured.AllocatedState
	holders map[structured.DeviceID]int // of devices in taken that one claim has alone
	freed   bool                        // a claim has lost something since free was asked
	list    []*resourcev1.ResourceSlice // of slices, nil = they changed
	cel     *cel.Cache                  // nil until it is needed
}

// pending is an allocation that the claim's status does not show yet.
type pending struct {
	*resourcev1.AllocationResult
	written string // the resourceVersion that shows it, "" = not written yet
	key     string // namespace/name, once it is written
}

func newDevices() devices {
	return devices{
		claims: map[string]*resourcev1.ResourceClaim{}, slices: map[string]*resourcev1.ResourceSlice{},
		classes: map[string]*resourcev1.DeviceClass{}, backed: map[corev1.ResourceName]*resourcev1.DeviceClass{},
		left: map[types.UID]*resourcev1.ResourceClaim{}, pending: map[types.UID]*pending{}, counted: map[types.UID]*resourcev1.AllocationResult{},
		taken: structured.AllocatedState{
			AllocatedDevices: sets.New[structured.DeviceID](), AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
			AggregatedCapacity: structured.NewConsumedCapacityCollection(),
		},
		holders: map[structured.DeviceID]int{},
	}
}

// setClaim notes a claim that came, changed or (now nil) went.
func (d *devices) setClaim(old, now *resourcev1.ResourceClaim) {
	if now == nil {
		key := old.Namespace + "/" + old.Name
		if have := d.claims[key]; have != nil && have.UID == old.UID {
			delete(d.claims, key)
		}
		if pod := specialOwner(old); pod != "" {
			delete(d.left, pod)
		}
		delete(d.pending, old.UID)
		d.recount(old.UID, nil)
		return
	}
	d.claims[now.Namespace+"/"+now.Name] = now
	if pod := specialOwner(now); pod != "" {
		d.left[pod] = now
	}
	if p := d.pending[now.UID]; p != nil && p.written != "" && !older(now.ResourceVersion, p.written) {
		delete(d.pending, now.UID)
	}
	d.recount(now.UID, now)
}

// older: one resourceVersion comes before another.
func older(a, b string) bool {
	c, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && c < 0
}

// recount what a claim has, nil = there is none.
func (d *devices) recount(uid types.UID, claim *resourcev1.ResourceClaim) {
	var has *resourcev1.AllocationResult
	if p := d.pending[uid]; p != nil {
		has = p.AllocationResult
	} else if claim != nil {
		has = claim.Status.Allocation
	}
	before := d.counted[uid]
	if before == has {
		return
	}
	if before != nil {
		d.count(before, -1)
		d.freed = d.freed || has == nil || !equality.Semantic.DeepEqual(before.Devices.Results, has.Devices.Results)
	}
	if has == nil {
		delete(d.counted, uid)
		return
	}
	d.count(has, 1)
	d.counted[uid] = has
}

// free says whether devices have become free since it was last asked: however that
// came, others may wait for them.
func (d *devices) free() bool {
	freed := d.freed
	d.freed = false
	return freed
}

// count an allocation in (1) or out (-1). Devices with admin access stay with those
// who have them.
func (d *devices) count(a *resourcev1.AllocationResult, by int) {
	for i := range a.Devices.Results {
		r := &a.Devices.Results[i]
		if r.AdminAccess != nil && *r.AdminAccess {
			continue
		}
		id := structured.MakeDeviceID(r.Driver, r.Pool, r.Device)
		if r.ShareID != nil {
			d.countShare(id, r, by)
			continue
		}
		if d.holders[id] += by; d.holders[id] > 0 {
			d.taken.AllocatedDevices.Insert(id)
		} else {
			delete(d.holders, id)
			d.taken.AllocatedDevices.Delete(id)
		}
	}
}

func (d *devices) countShare(id structured.DeviceID, r *resourcev1.DeviceRequestAllocationResult, by int) {
	share, capacity := structured.MakeSharedDeviceID(id, r.ShareID), structured.NewDeviceConsumedCapacity(id, r.ConsumedCapacity)
	if by > 0 {
		d.taken.AllocatedSharedDeviceIDs.Insert(share)
		d.taken.AggregatedCapacity.Insert(capacity)
		return
	}
	d.taken.AllocatedSharedDeviceIDs.Delete(share)
	d.taken.AggregatedCapacity.Remove(capacity)
}

// assume that a claim has what a decision gave it.
func (d *devices) assume(claim *resourcev1.ResourceClaim, a *resourcev1.AllocationResult) {
	d.pending[claim.UID] = &pending{AllocationResult: a}
	d.recount(claim.UID, claim)
}

// wrote down what was assumed of a claim: version of it shows that.
func (d *devices) wrote(key string, uid types.UID, version string) {
	p := d.pending[uid]
	if p == nil {
		return
	}
	p.key = key
	if p.written = version; d.claims[key] == nil || d.claims[key].UID == uid && older(d.claims[key].ResourceVersion, version) {
		return // not seen yet
	}
	d.drop(key, uid)
}

// drop what was assumed of a claim.
func (d *devices) drop(key string, uid types.UID) {
	delete(d.pending, uid)
	claim := d.claims[key]
	if claim != nil && claim.UID != uid {
		claim = nil
	}
	d.recount(uid, claim)
}

func (d *devices) setSlice(old, now *resourcev1.ResourceSlice) {
	d.list = nil
	if now == nil {
		delete(d.slices, old.Name)
	} else {
		d.slices[now.Name] = now
	}
}

// all slices, by name.
func (d *devices) all() []*resourcev1.ResourceSlice {
	if d.list == nil && len(d.slices) > 0 {
		d.list = make([]*resourcev1.ResourceSlice, 0, len(d.slices))
		for _, s := range d.slices {
			d.list = append(d.list, s)
		}
		slices.SortFunc(d.list, func(a, b *resourcev1.ResourceSlice) int { return cmp.Compare(a.Name, b.Name) })
	}
	return d.list
}

// setClass notes a class, and which extended resources it stands for: one of its own
// and the one it names. Where two name the same the newer has it.
func (d *devices) setClass(old, now *resourcev1.DeviceClass) {
	if now == nil {
		delete(d.classes, old.Name)
	} else {
		d.classes[now.Name] = now
	}
	clear(d.backed)
	d.mapped++
	for _, c := range d.classes {
		d.backed[corev1.ResourceName(resourcev1.ResourceDeviceClassPrefix+c.Name)] = c
		if c.Spec.ExtendedResourceName == nil {
			continue
		}
		name := corev1.ResourceName(*c.Spec.ExtendedResourceName)
		if have := d.backed[name]; have == nil || cmp.Or(have.CreationTimestamp.Compare(c.CreationTimestamp.Time), cmp.Compare(c.Name, have.Name)) < 0 {
			d.backed[name] = c
		}
	}
}

// Get implements structured.DeviceClassLister.
func (d *devices) Get(name string) (*resourcev1.DeviceClass, error) {
	if c := d.classes[name]; c != nil {
		return c, nil
	}
	return nil, apierrors.NewNotFound(resourcev1.Resource("deviceclasses"), name)
}

// List implements structured.DeviceClassLister.
func (d *devices) List() ([]*resourcev1.DeviceClass, error) {
	all := make([]*resourcev1.DeviceClass, 0, len(d.classes))
	for _, c := range d.classes {
		all = append(all, c)
	}
	return all, nil
}
