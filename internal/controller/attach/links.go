package attach

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/proa-dev/proa/internal/api/storage"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/volume"
)

// links lead from disks to what is about them. The handlers keep them, under
// Controller.mu.
type links struct {
	volumesOf map[disk]set                           // PersistentVolumes that name it
	nodesOf   map[disk]set                           // with a VolumeAttachment of it
	usersOf   map[string]set                         // pods, by the key of a claim
	strangers map[string]*storagev1.VolumeAttachment // whose disk is not known: no volume of it was seen yet, or it is somebody else's
	leaving   set                                    // VolumeAttachments that are about to be deleted
	departed  map[string][]corev1.UniqueVolumeName   // what nodes that are gone used at last
}

type set map[string]struct{}

func newLinks() links {
	return links{map[disk]set{}, map[disk]set{}, map[string]set{}, map[string]*storagev1.VolumeAttachment{}, set{}, map[string][]corev1.UniqueVolumeName{}}
}

func link[K comparable](m map[K]set, key K, to string) {
	if m[key] == nil {
		m[key] = set{}
	}
	m[key][to] = struct{}{}
}

func unlink[K comparable](m map[K]set, key K, from string) {
	if delete(m[key], from); len(m[key]) == 0 {
		delete(m, key)
	}
}

// linked are the things of one kind that are linked with a key.
func linked[K comparable](c *Controller, m map[K]set, key K) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(m[key]))
}

func (c *Controller) podChanged(old, now *corev1.Pod) {
	p := cmp.Or(now, old)
	names := volume.ClaimsOf(p)
	if len(names) == 0 {
		return
	}
	same := old != nil && now != nil && needs(old) == needs(now)
	for _, name := range names {
		key := client.Key(p.Namespace, name)
		c.mu.Lock()
		if now == nil {
			unlink(c.usersOf, key, p.Name)
		} else {
			link(c.usersOf, key, p.Name)
		}
		c.mu.Unlock()
		if claim, ok := c.claimsIn.Get(p.Namespace, name); ok && !same {
			c.wakeVolume(claim.Spec.VolumeName)
		}
	}
}

func (c *Controller) wakeVolume(name string) {
	if v, ok := c.volumesIn.Get("", name); ok {
		if d, is := diskOf(v); is {
			c.queue.Add(keyOf(d))
		}
	}
}

func (c *Controller) claimChanged(old, now *corev1.PersistentVolumeClaim) {
	if old != nil && now != nil && old.Spec.VolumeName == now.Spec.VolumeName && old.Status.Phase == now.Status.Phase && old.UID == now.UID {
		return
	}
	for _, claim := range []*corev1.PersistentVolumeClaim{old, now} {
		if claim != nil && claim.Spec.VolumeName != "" {
			c.wakeVolume(claim.Spec.VolumeName)
		}
	}
}

func (c *Controller) volumeChanged(old, now *corev1.PersistentVolume) {
	v := cmp.Or(now, old)
	d, is := diskOf(v)
	if !is {
		return
	}
	c.mu.Lock()
	if now == nil {
		unlink(c.volumesOf, d, v.Name)
	} else {
		link(c.volumesOf, d, v.Name)
		for name, a := range c.strangers {
			if name == d.Attachment(a.Spec.NodeName) {
				delete(c.strangers, name)
				link(c.nodesOf, d, a.Spec.NodeName)
			}
		}
	}
	c.mu.Unlock()
	c.queue.Add(keyOf(d))
}

func (c *Controller) driverChanged(old, now *storagev1.CSIDriver) {
	if old != nil && now != nil && attaches(old) == attaches(now) {
		return
	}
	name := cmp.Or(now, old).Name
	c.mu.Lock()
	defer c.mu.Unlock()
	for d := range c.volumesOf {
		if d.Driver == name {
			c.queue.Add(keyOf(d))
		}
	}
}

// attaches says whether a driver's disks are attached at all: that is so if it
// does not say otherwise.
func attaches(d *storagev1.CSIDriver) bool {
	return d.Spec.AttachRequired == nil || *d.Spec.AttachRequired
}

func (c *Controller) attachmentChanged(old, now *storagev1.VolumeAttachment) {
	a := cmp.Or(now, old)
	d, known := c.diskBehind(a)
	c.mu.Lock()
	switch {
	case known && now != nil:
		link(c.nodesOf, d, a.Spec.NodeName)
	case now != nil:
		c.strangers[a.Name] = now
	default:
		delete(c.strangers, a.Name)
		delete(c.leaving, a.Name)
	}
	c.mu.Unlock()
	if known {
		c.queue.Add(keyOf(d))
		c.queue.Add("n/" + a.Spec.NodeName)
	}
}

// diskBehind an attachment, if it is one of those that are made here: by the
// volume that it is of, else by what its node was told or uses.
func (c *Controller) diskBehind(a *storagev1.VolumeAttachment) (disk, bool) {
	if name := a.Spec.Source.PersistentVolumeName; name != nil {
		if v, ok := c.volumesIn.Get("", *name); ok {
			d, is := diskOf(v)
			return d, is && d.Attachment(a.Spec.NodeName) == a.Name
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for d, nodes := range c.nodesOf { // its volume is gone
		if _, on := nodes[a.Spec.NodeName]; on && d.Driver == a.Spec.Attacher && d.Attachment(a.Spec.NodeName) == a.Name {
			return d, true
		}
	}
	if n, ok := c.nodesIn.Get("", a.Spec.NodeName); ok {
		return diskOn(n, a.Name)
	}
	return disk{}, false
}

// diskOn a node that has an attachment of this name.
func diskOn(n *corev1.Node, attachment string) (disk, bool) {
	names := slices.Clone(n.Status.VolumesInUse)
	for _, a := range n.Status.VolumesAttached {
		names = append(names, a.Name)
	}
	for _, name := range names {
		if d, is := storage.DiskNamed(name); is && d.Attachment(n.Name) == attachment {
			return d, true
		}
	}
	return disk{}, false
}
