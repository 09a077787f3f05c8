// Package image makes sure that the images of pods are on the node: pull
// policies, credentials, back-off, and the removal of images nobody uses.
package image

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/kubelet/pod"
	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

const parallel = 4 // pulls at a time

// Manager of the images on a node.
type Manager struct {
	rt     *runtime.Client
	events *event.Recorder
	log    *slog.Logger
	turn   chan struct{}

	mu   sync.Mutex
	back map[string]pod.Back
	used map[string]time.Time // image ID → when last seen in use
}

// New manager.
func New(rt *runtime.Client, events *event.Recorder, log *slog.Logger) *Manager {
	return &Manager{
		rt: rt, events: events, log: log, turn: make(chan struct{}, parallel),
		back: map[string]pod.Back{}, used: map[string]time.Time{},
	}
}

// Error says why an image is not there, as a container's waiting state shows it.
type Error struct {
	pod.Waiting
}

func (e *Error) Error() string { return e.Reason + ": " + e.Message }

// Request for an image.
type Request struct {
	Pod     *v1.Pod
	About   v1.ObjectReference // whom events are about
	Image   string
	Policy  v1.PullPolicy
	Secrets []*v1.Secret
	Sandbox *cri.PodSandboxConfig
	Handler string
}

// Ensure the image is there. It returns how the runtime names it, and what the
// runtime knows of it; an error is an *Error or the context's.
func (m *Manager) Ensure(ctx context.Context, r Request) (ref string, img *cri.Image, err error) {
	full, err := WithTag(r.Image)
	if err != nil {
		msg := fmt.Sprintf("Failed to apply default image tag %q: %v", r.Image, err)
		m.events.Warning(r.About, "InspectFailed", "%s", msg)
		return "", nil, &Error{pod.Waiting{Reason: "InvalidImageName", Message: msg, Until: time.Now().Add(5 * time.Minute), Config: true}}
	}
	spec := &cri.ImageSpec{Image: full, RuntimeHandler: r.Handler, Annotations: r.Pod.Annotations}
	if img, err = m.find(ctx, spec); err != nil {
		msg := fmt.Sprintf("Failed to inspect image %q: %v", r.Image, runtime.Message(err))
		m.events.Warning(r.About, "InspectFailed", "%s", msg)
		return "", nil, &Error{pod.Waiting{Reason: "ImageInspectError", Message: msg, Until: time.Now().Add(10 * time.Second)}}
	}
	if img != nil && r.Policy != v1.PullAlways {
		m.events.Normal(r.About, "Pulled", "Container image %q already present on machine and can be accessed by the pod", r.Image)
		return img.Id, img, nil
	}
	if r.Policy == v1.PullNever {
		msg := fmt.Sprintf("Container image %q is not present with pull policy of Never", r.Image)
		m.events.Warning(r.About, "ErrImageNeverPull", "%s", msg)
		return "", nil, &Error{pod.Waiting{Reason: "ErrImageNeverPull", Message: msg, Until: time.Now().Add(10 * time.Second)}}
	}
	if err := m.pull(ctx, r, spec); err != nil {
		return "", nil, err
	}
	img, err = m.find(ctx, spec)
	if err != nil || img == nil {
		return "", nil, &Error{pod.Waiting{Reason: "ErrImagePull", Message: fmt.Sprintf("image %q was pulled and is not there: %v", r.Image, err), Until: time.Now().Add(10 * time.Second)}}
	}
	return img.Id, img, nil
}

func (m *Manager) find(ctx context.Context, spec *cri.ImageSpec) (*cri.Image, error) {
	s, err := m.rt.Images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: spec})
	if err != nil {
		return nil, err
	}
	if s.Image != nil {
		m.mu.Lock()
		m.used[s.Image.Id] = time.Now()
		m.mu.Unlock()
	}
	return s.Image, nil
}

func (m *Manager) pull(ctx context.Context, r Request, spec *cri.ImageSpec) error {
	asked := time.Now()
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	m.events.Normal(r.About, "Pulling", "Pulling image %q", r.Image)
	began := time.Now()
	var err error
	for _, auth := range credentials(spec.Image, r.Secrets) {
		if _, err = m.rt.Images.PullImage(ctx, &cri.PullImageRequest{Image: spec, Auth: auth, SandboxConfig: r.Sandbox}); err == nil {
			break
		}
	}
	key := string(r.Pod.UID) + "_" + r.Image
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now := time.Now()
		m.back[key] = m.back[key].Next(now, now)
		m.events.Warning(r.About, "Failed", "Failed to pull image %q: %v", r.Image, err)
		reason, msg := "ErrImagePull", err.Error()
		if text, ok := strings.CutPrefix(runtime.Message(err), "RegistryUnavailable"); ok {
			reason, msg = "RegistryUnavailable", "image pull failed for "+r.Image+" because the registry is unavailable"+text
		}
		m.events.Warning(r.About, "Failed", "Error: %v", reason)
		return &Error{pod.Waiting{Reason: reason, Message: msg, Image: r.Image, Since: now, Until: m.back[key].Until(now)}}
	}
	delete(m.back, key)
	m.events.Normal(r.About, "Pulled", "Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
		r.Image, time.Since(began).Truncate(time.Millisecond), time.Since(asked).Truncate(time.Millisecond), m.size(ctx, spec))
	return nil
}

func (m *Manager) size(ctx context.Context, spec *cri.ImageSpec) uint64 {
	s, err := m.rt.Images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: spec})
	if err != nil {
		return 0
	}
	return s.GetImage().GetSize()
}

// Forget the back-off of a pod that is gone.
func (m *Manager) Forget(uid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.back {
		if strings.HasPrefix(k, uid+"_") {
			delete(m.back, k)
		}
	}
}

// WithTag gives an image name that has neither tag nor digest the tag latest.
func WithTag(image string) (string, error) {
	if strings.HasPrefix(image, "sha256:") {
		return image, nil
	}
	if _, err := name.ParseReference(image, name.WeakValidation); err != nil {
		return "", fmt.Errorf("couldn't parse image name %q: invalid reference format: %w", image, err)
	}
	last := image[strings.LastIndexByte(image, '/')+1:]
	if strings.ContainsAny(last, ":@") {
		return image, nil
	}
	return image + ":latest", nil
}
