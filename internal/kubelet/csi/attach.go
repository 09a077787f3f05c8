package csi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/proa-dev/proa/internal/client"
)

// attachPatience is how long a pod waits for a volume to be attached before an event
// says so; then it is tried again.
const attachPatience = 2*time.Minute + 3*time.Second

// attached waits until a volume that has to be attached to the node is, and returns
// what its driver has said about the attachment.
func (m *Manager) attached(ctx context.Context, t *target) (map[string]string, error) {
	if !t.attach {
		return nil, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, attachPatience, ErrNotAttached)
	defer cancel()
	for {
		node, changed := m.Self()
		if node != nil && isAttached(node, t.id.Name()) {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), ErrNotAttached) {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("Unable to attach or mount volumes: unmounted volumes=[%s], unattached volumes=[%s], failed to process volumes=[]: %w", t.Name, t.Name, ErrNotAttached)
		}
	}
	name := t.id.Attachment(m.Node)
	a, err := client.For[*storagev1.VolumeAttachment](m.Conn).Get(ctx, "", name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, t.fail(t.stageStep(), fmt.Errorf("volume attachment %s of %s is not there (yet)", name, t.id.Handle))
	case err != nil:
		return nil, t.fail(t.stageStep(), err)
	case !a.Status.Attached && a.Status.AttachError != nil:
		return nil, t.fail(t.stageStep(), fmt.Errorf("volume %s has attach error: %s", t.id.Handle, a.Status.AttachError.Message))
	case !a.Status.Attached:
		return nil, t.fail(t.stageStep(), fmt.Errorf("volume attachment %s of %s is not attached (yet)", name, t.id.Handle))
	}
	return a.Status.AttachmentMetadata, nil
}

// ErrNotAttached is why a pod has to wait longer; an error that wraps it names the volume.
var ErrNotAttached = errors.New("timed out waiting for the condition")

// isAttached says whether the controllers have attached a volume and know that the
// node uses it, so that they will not detach it.
func isAttached(node *v1.Node, name v1.UniqueVolumeName) bool {
	return slices.Contains(node.Status.VolumesInUse, name) &&
		slices.ContainsFunc(node.Status.VolumesAttached, func(a v1.AttachedVolume) bool { return a.Name == name })
}
