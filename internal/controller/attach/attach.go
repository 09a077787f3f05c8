// Package attach has CSI drivers attach disks to the nodes whose pods need them,
// and detach them when none does any more and the node has let go: it writes
// VolumeAttachments, which the driver's attacher carries out, and tells each node
// what is attached to it (status.volumesAttached). What is attached is read from
// VolumeAttachments alone, so that a restart takes over where the last run ended.
//
// Disks of in-tree kinds that a driver has taken over (CSI migration) are not
// attached: their PersistentVolumes have to name the driver.
package attach

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/event"
	"github.com/proa-dev/proa/internal/controller/loop"
)

// Controller of VolumeAttachments.
type Controller struct {
	queue     *loop.Queue
	podsIn    *client.Informer[*corev1.Pod]
	claimsIn  *client.Informer[*corev1.PersistentVolumeClaim]
	volumesIn *client.Informer[*corev1.PersistentVolume]
	nodesIn   *client.Informer[*corev1.Node]
	driversIn *client.Informer[*storagev1.CSIDriver]
	in        *client.Informer[*storagev1.VolumeAttachment]

	claims      client.Client[*corev1.PersistentVolumeClaim]
	volumes     client.Client[*corev1.PersistentVolume]
	pods        client.Client[*corev1.Pod]
	nodes       client.Client[*corev1.Node]
	drivers     client.Client[*storagev1.CSIDriver]
	attachments client.Client[*storagev1.VolumeAttachment]
	record      *event.Recorder
	now         func() time.Time

	mu sync.Mutex
	links
	memos map[disk]*memo
}

// memo is what is remembered of a disk between looks: only its worker has it.
type memo struct {
	unneeded map[string]time.Time  // since when, by node
	told     map[string]string     // what pods were told about it, by node
	asked    map[string]time.Time  // since when a driver has been asked to attach it, by node
	failed   map[string]*time.Time // when the failure was that pods were told of, by node
}

// New controller.
func New(in *client.Informers, log *slog.Logger) *Controller {
	c := &Controller{
		queue:       loop.NewQueue("attach", log),
		podsIn:      client.Shared[*corev1.Pod](in, client.Scope{}),
		claimsIn:    client.Shared[*corev1.PersistentVolumeClaim](in, client.Scope{}),
		volumesIn:   client.Shared[*corev1.PersistentVolume](in, client.Scope{}),
		nodesIn:     client.Shared[*corev1.Node](in, client.Scope{}),
		driversIn:   client.Shared[*storagev1.CSIDriver](in, client.Scope{}),
		in:          client.Shared[*storagev1.VolumeAttachment](in, client.Scope{}),
		claims:      client.For[*corev1.PersistentVolumeClaim](in.Conn()),
		volumes:     client.For[*corev1.PersistentVolume](in.Conn()),
		pods:        client.For[*corev1.Pod](in.Conn()),
		nodes:       client.For[*corev1.Node](in.Conn()),
		drivers:     client.For[*storagev1.CSIDriver](in.Conn()),
		attachments: client.For[*storagev1.VolumeAttachment](in.Conn()),
		record:      event.New(in.Conn(), "attachdetach-controller", "", log),
		now:         time.Now,
		links:       newLinks(),
		memos:       map[disk]*memo{},
	}
	c.podsIn.OnChange(c.podChanged)
	c.claimsIn.OnChange(c.claimChanged)
	c.volumesIn.OnChange(c.volumeChanged)
	c.nodesIn.OnChange(c.nodeChanged)
	c.driversIn.OnChange(c.driverChanged)
	c.in.OnChange(c.attachmentChanged)
	return c
}

// Run implements loop.Controller.
func (c *Controller) Run(ctx context.Context) error {
	go c.record.Run(ctx)
	return c.queue.Run(ctx, 4, c.reconcile, c.podsIn.Synced(), c.claimsIn.Synced(), c.volumesIn.Synced(), c.nodesIn.Synced(), c.driversIn.Synced(), c.in.Synced())
}

func (c *Controller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	if name, is := strings.CutPrefix(key, "n/"); is {
		return 0, c.report(ctx, name)
	}
	d := diskKeyed(key)
	m := c.memo(d)
	s, err := c.look(ctx, d, m)
	if err != nil {
		return 0, err
	}
	now := c.now()
	steps := decide(s, now)
	c.speak(s, m, steps)
	var again time.Duration
	for _, one := range steps {
		if one.verb == wait {
			again = sooner(again, one.at.Sub(now))
			continue
		}
		if err := c.do(ctx, d, s, m, one); err != nil {
			return 0, err
		}
	}
	again = sooner(again, c.outcome(d, s, m, now))
	if len(s.attached)+len(s.pods)+len(m.asked) == 0 {
		c.forget(d)
	}
	return again, nil
}

// sooner of two delays, 0 = none.
func sooner(a, b time.Duration) time.Duration {
	if a <= 0 || b > 0 && b < a {
		return max(b, 0)
	}
	return a
}

func (c *Controller) memo(d disk) *memo {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.memos[d]
	if m == nil {
		m = &memo{map[string]time.Time{}, map[string]string{}, map[string]time.Time{}, map[string]*time.Time{}}
		c.memos[d] = m
	}
	return m
}

func (c *Controller) forget(d disk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.memos, d)
}
