package attach

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/volume"
)

// look at a disk: who needs it, where it is.
func (c *Controller) look(ctx context.Context, d disk, m *memo) (*state, error) {
	s := &state{pods: map[string][]*corev1.Pod{}, attached: map[string]*storagev1.VolumeAttachment{}, nodes: map[string]node{}, unneeded: m.unneeded}
	if err := c.lookForPods(ctx, d, s); err != nil {
		return nil, err
	}
	on := linked(c, c.nodesOf, d)
	for name := range s.pods {
		if !slices.Contains(on, name) {
			on = append(on, name)
		}
	}
	for _, name := range on {
		a, err := c.attachments.Get(ctx, "", d.Attachment(name))
		switch {
		case apierrors.IsNotFound(err):
			c.detached(d, name)
		case err != nil:
			return nil, err
		default:
			s.attached[name] = a
		}
	}
	now := c.now()
	for name := range s.attached {
		if err := c.lookAtNode(ctx, d, s, name); err != nil {
			return nil, err
		}
		if len(s.pods[name]) > 0 {
			delete(m.unneeded, name)
			c.stays(d.Attachment(name), name)
		} else if _, since := m.unneeded[name]; !since {
			m.unneeded[name] = now
		}
	}
	for name := range m.unneeded {
		if s.attached[name] == nil {
			delete(m.unneeded, name)
		}
	}
	return s, nil
}

// detached: there is no attachment of a disk to a node any more.
func (c *Controller) detached(d disk, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	unlink(c.nodesOf, d, node)
	delete(c.leaving, d.Attachment(node))
	if len(c.disksOn(node)) == 0 {
		delete(c.departed, node)
	}
}

// stays: an attachment that was about to be deleted is needed again.
func (c *Controller) stays(attachment, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, leaves := c.leaving[attachment]; leaves {
		delete(c.leaving, attachment)
		c.queue.Add("n/" + node)
	}
}

func (c *Controller) lookAtNode(ctx context.Context, d disk, s *state, name string) error {
	n, err := c.nodes.Get(ctx, "", name)
	if err == nil {
		s.nodes[name] = nodeOf(n, d)
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if used, known := c.departed[name]; known && !slices.Contains(used, d.Name()) {
		s.nodes[name] = node{}
	}
	return loop.IgnoreNotFound(err)
}

// lookForPods that need a disk, if its driver attaches disks.
func (c *Controller) lookForPods(ctx context.Context, d disk, s *state) error {
	driver, err := c.drivers.Get(ctx, "", d.Driver)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	needed := err != nil || attaches(driver)
	for _, name := range linked(c, c.volumesOf, d) {
		v, err := c.volumes.Get(ctx, "", name)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		if s.volume == "" {
			s.volume, s.shared = name, severalNodes(v)
		}
		if r := v.Spec.ClaimRef; r != nil && needed {
			if err := c.lookForUsers(ctx, v, r, s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Controller) lookForUsers(ctx context.Context, v *corev1.PersistentVolume, r *corev1.ObjectReference, s *state) error {
	claim, err := c.claims.Get(ctx, r.Namespace, r.Name)
	if err != nil {
		return loop.IgnoreNotFound(err)
	}
	if claim.UID != r.UID || claim.Spec.VolumeName != v.Name || claim.Status.Phase != corev1.ClaimBound {
		return nil
	}
	for _, name := range linked(c, c.usersOf, client.Key(r.Namespace, r.Name)) {
		p, err := c.pods.Get(ctx, r.Namespace, name)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		if !needs(p) || !mayUse(p, claim) {
			continue
		}
		_, err = c.nodes.Get(ctx, "", p.Spec.NodeName)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		s.pods[p.Spec.NodeName] = append(s.pods[p.Spec.NodeName], p)
	}
	return nil
}

// mayUse: the claim of a generic ephemeral volume has to be the pod's own.
func mayUse(p *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	for i := range p.Spec.Volumes {
		if one := p.Spec.Volumes[i].PersistentVolumeClaim; one != nil && one.ClaimName == claim.Name {
			return true
		}
	}
	return slices.Contains(volume.ClaimsOf(p), claim.Name) && metav1.IsControlledBy(claim, p)
}

// slow is how long a driver may take to attach a disk before pods are told that it
// has not answered.
const slow = 2 * time.Minute
