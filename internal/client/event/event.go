// Package event records what a component does and sees as Events. The same thing
// said again within ten minutes adds to the count of the Event that said it first.
package event

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

const (
	window = 10 * time.Minute
	shards = 4    // events about one object stay in order; others are written at the same time
	queued = 8192 // per shard, at the most: a burst as large as a Deployment of 30,000 pods loses nothing
	sweep  = time.Minute
	burst  = 25              // events about one object at once …
	refill = 5 * time.Minute // … and one more each of these
)

// Recorder writes events in the background. Events that come faster than they can
// be written for long are dropped, and how many is logged once a minute.
type Recorder struct {
	events    client.Client[*v1.Event]
	component string
	host      string
	log       *slog.Logger
	queues    [shards]backlog
	dropped   atomic.Int64

	mu    sync.Mutex
	spent map[types.UID]allowance
}

type allowance struct {
	left float64
	at   time.Time
}

// New recorder of a component ("deployment-controller"). host may be empty.
func New(conn client.Conn, component, host string, log *slog.Logger) *Recorder {
	r := &Recorder{events: client.For[*v1.Event](conn), component: component, host: host, log: log, spent: map[types.UID]allowance{}}
	for i := range r.queues {
		r.queues[i].wake = make(chan struct{}, 1)
	}
	return r
}

// Ref of an object, for the events about it.
func Ref(k *api.Kind, obj api.Object) v1.ObjectReference {
	return v1.ObjectReference{
		APIVersion: k.GroupVersion().String(), Kind: k.GroupVersionKind.Kind, Namespace: obj.GetNamespace(), Name: obj.GetName(), UID: obj.GetUID(),
		ResourceVersion: obj.GetResourceVersion(),
	}
}

// Normal event.
func (r *Recorder) Normal(about v1.ObjectReference, reason, format string, args ...any) {
	r.add(about, v1.EventTypeNormal, reason, format, args)
}

// Warning event.
func (r *Recorder) Warning(about v1.ObjectReference, reason, format string, args ...any) {
	r.add(about, v1.EventTypeWarning, reason, format, args)
}

func (r *Recorder) add(about v1.ObjectReference, kind, reason, format string, args []any) {
	now := metav1.Now()
	if !r.allowed(about.UID, now.Time) {
		return
	}
	namespace := about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	name := fmt.Sprintf("%s.%x", about.Name, now.UnixNano())
	now = now.Rfc3339Copy() // as exact as what is stored
	e := &v1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: name},
		InvolvedObject: about,
		Type:           kind, Reason: reason, Message: fmt.Sprintf(format, args...),
		Source: v1.EventSource{Component: r.component, Host: r.host}, ReportingController: r.component, ReportingInstance: r.host,
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	if len(e.Message) > 1024 {
		e.Message = e.Message[:1024]
	}
	if !r.queues[shard(about.UID)].put(e) {
		r.dropped.Add(1)
	}
}

// backlog is the events that wait to be written. It takes the room that they need
// and no more: most recorders say little, and some say much at once.
type backlog struct {
	mu   sync.Mutex
	list []*v1.Event
	wake chan struct{}
}

// put an event at the end; false = there are too many.
func (b *backlog) put(e *v1.Event) bool {
	b.mu.Lock()
	full := len(b.list) >= queued
	if !full {
		b.list = append(b.list, e)
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return !full
}

// take all that wait.
func (b *backlog) take() []*v1.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.list
	b.list = nil
	return list
}

func shard(uid types.UID) int {
	sum := 0
	for i := range len(uid) {
		sum += int(uid[i])
	}
	return sum % shards
}

func (r *Recorder) allowed(uid types.UID, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.spent) > 4*queued {
		clear(r.spent)
	}
	a, ok := r.spent[uid]
	if !ok {
		a = allowance{burst, now}
	}
	a.left = min(burst, a.left+now.Sub(a.at).Seconds()/refill.Seconds())
	a.at = now
	good := a.left >= 1
	if good {
		a.left--
	}
	r.spent[uid] = a
	return good
}

type key struct {
	uid                          types.UID
	field, kind, reason, message string
}

type said struct {
	name  string
	count int32
	at    time.Time
}

// Run writes events until ctx ends.
func (r *Recorder) Run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range r.queues {
		all.Go(func() { r.write(ctx, &r.queues[i]) })
	}
	all.Wait()
}

func (r *Recorder) write(ctx context.Context, queue *backlog) {
	before, swept := map[key]said{}, time.Now()
	for {
		for _, e := range queue.take() {
			if ctx.Err() != nil {
				return
			}
			r.one(ctx, e, before)
		}
		if now := time.Now(); now.Sub(swept) > sweep {
			swept = now
			for k, s := range before {
				if now.Sub(s.at) > window {
					delete(before, k)
				}
			}
			if n := r.dropped.Swap(0); n > 0 {
				r.log.Warn("events dropped: they came faster than they could be written", "count", n, "component", r.component)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-queue.wake:
		}
	}
}

func (r *Recorder) one(ctx context.Context, e *v1.Event, before map[key]said) {
	k := key{e.InvolvedObject.UID, e.InvolvedObject.FieldPath, e.Type, e.Reason, e.Message}
	s, again := before[k]
	if again && e.LastTimestamp.Sub(s.at) > window {
		again = false
	}
	var err error
	if again {
		s.count, s.at = s.count+1, e.LastTimestamp.Time
		err = r.repeat(ctx, e, s)
	}
	if !again || apierrors.IsNotFound(err) {
		s = said{e.Name, 1, e.LastTimestamp.Time}
		_, err = r.events.Create(ctx, e)
	}
	if err != nil && ctx.Err() == nil {
		r.log.Debug("event not written", "reason", e.Reason, "about", e.InvolvedObject.Name, "err", err)
	}
	before[k] = s
}

func (r *Recorder) repeat(ctx context.Context, e *v1.Event, s said) error {
	patch, err := json.Marshal(map[string]any{"count": s.count, "lastTimestamp": e.LastTimestamp})
	if err != nil {
		return err
	}
	_, err = r.events.Patch(ctx, e.Namespace, s.name, client.Patch{Type: types.MergePatchType, Data: patch}, client.WriteOptions{})
	return err
}
