package attach

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// do one step about a disk.
func (c *Controller) do(ctx context.Context, d disk, s *state, m *memo, one step) error {
	switch one.verb {
	case attach:
		return c.attach(ctx, d, s, m, one.node)
	case unreport:
		c.mu.Lock()
		c.leaving[d.Attachment(one.node)] = struct{}{}
		c.mu.Unlock()
		c.queue.Add("n/" + one.node) // whose change wakes the disk again
	case detach:
		a := s.attached[one.node]
		c.mu.Lock()
		c.leaving[a.Name] = struct{}{} // so that it is not reported meanwhile
		c.mu.Unlock()
		return loop.IgnoreNotFound(c.attachments.Delete(ctx, "", a.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &a.UID}}))
	}
	return nil
}

func (c *Controller) attach(ctx context.Context, d disk, s *state, m *memo, node string) error {
	c.mu.Lock()
	link(c.nodesOf, d, node)
	delete(c.leaving, d.Attachment(node))
	c.mu.Unlock()
	_, err := c.attachments.Create(ctx, &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: d.Attachment(node)},
		Spec:       storagev1.VolumeAttachmentSpec{Attacher: d.Driver, NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &s.volume}},
	})
	if err == nil || apierrors.IsAlreadyExists(err) {
		m.asked[node] = c.now()
		return nil
	}
	return err
}

// speak to the pods whose disk cannot be attached now, once for each reason.
func (c *Controller) speak(s *state, m *memo, steps []step) {
	refused := map[string]bool{}
	for _, one := range steps {
		if one.verb != refuse {
			continue
		}
		refused[one.node] = true
		said := one.why(s.pods[one.node][0])
		if m.told[one.node] == said {
			continue
		}
		m.told[one.node] = said
		for _, p := range s.pods[one.node] {
			c.record.Warning(event.Ref(c.pods.Kind(), p), "FailedAttachVolume", "%s", one.why(p))
		}
	}
	for node := range m.told {
		if !refused[node] {
			delete(m.told, node)
		}
	}
}

// outcome tells pods what has become of what a driver was asked for, and returns
// when to look whether it has answered.
func (c *Controller) outcome(d disk, s *state, m *memo, now time.Time) (again time.Duration) {
	tell := func(node, kind, reason, text string) {
		for _, p := range s.pods[node] {
			if kind == corev1.EventTypeNormal {
				c.record.Normal(event.Ref(c.pods.Kind(), p), reason, "%s", text)
			} else {
				c.record.Warning(event.Ref(c.pods.Kind(), p), reason, "%s", text)
			}
		}
	}
	for node, a := range s.attached { // by this run or by one before
		if _, asked := m.asked[node]; !asked && !a.Status.Attached && a.DeletionTimestamp == nil {
			m.asked[node] = now
		}
	}
	for node, since := range m.asked {
		if len(s.pods[node]) == 0 {
			delete(m.asked, node)
			continue
		}
		a := s.attached[node]
		switch {
		case a != nil && a.Status.Attached:
			delete(m.asked, node)
			tell(node, corev1.EventTypeNormal, "SuccessfulAttachVolume", fmt.Sprintf("AttachVolume.Attach succeeded for volume %q ", s.volume))
		case a != nil && a.Status.AttachError != nil: // said below
		case now.Sub(since) >= slow:
			m.asked[node] = now
			tell(node, corev1.EventTypeWarning, "FailedAttachVolume", fmt.Sprintf("AttachVolume.Attach failed for volume %q : timed out waiting for external-attacher of %s CSI driver to attach volume %s", s.volume, d.Driver, d.Handle))
			again = sooner(again, slow)
		default:
			again = sooner(again, slow-now.Sub(since))
		}
	}
	for node, a := range s.attached {
		e := a.Status.AttachError
		if e == nil || a.Status.Attached || len(s.pods[node]) == 0 {
			delete(m.failed, node)
			continue
		}
		if at := m.failed[node]; at == nil || !at.Equal(e.Time.Time) {
			m.failed[node] = &e.Time.Time
			m.asked[node] = now
			tell(node, corev1.EventTypeWarning, "FailedAttachVolume", fmt.Sprintf("AttachVolume.Attach failed for volume %q : %s", s.volume, e.Message))
		}
	}
	return again
}
