// Package audit records what requests do, as a policy says (audit.k8s.io/v1), and
// hands the records to a log file and to a webhook.
//
// A server without a policy has no Log: a request then costs nothing, because
// every method of a nil Record returns at once.
package audit

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// Header that names a request's record: a client may choose it, and is told it.
const Header = "Audit-Id"

// Log decides what is recorded and where it goes.
type Log struct {
	policy *Policy
	sinks  []sink
	log    *slog.Logger
	lost   atomic.Int64 // events that no sink took
	count  counters
}

func newLog(p *Policy, log *slog.Logger) *Log { return &Log{policy: p, log: log, count: newCounters()} }

// entry is an event on its way to the sinks: immutable, encoded once for all.
type entry struct {
	event *auditv1.Event
	json  []byte // without apiVersion and kind
}

// sink takes events. An error means that the entries are lost.
type sink interface {
	put(e ...entry) error
}

// runner is a sink that works in the background until ctx ends; then it passes
// on what it still has.
type runner interface {
	run(ctx context.Context)
}

// Run passes events on until ctx ends, and then what is waiting still. ctx must
// outlive the requests.
func (l *Log) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range l.sinks {
		if r, ok := s.(runner); ok {
			wg.Go(func() { r.run(ctx) })
		}
	}
	<-ctx.Done()
	wg.Wait()
}

// Lost is how many events have not reached a sink.
func (l *Log) Lost() int64 { return l.lost.Load() }

// put hands an event to every sink.
func (l *Log) put(ev *auditv1.Event) error {
	text, err := json.Marshal(ev)
	if err != nil {
		l.failed(pluginLog, 1, err)
		return err
	}
	e := entry{ev, text}
	var failed []error
	for _, s := range l.sinks {
		if err := s.put(e); err != nil { // who has lost it has said so
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// failed notes that events are lost, and where.
func (l *Log) failed(plugin string, n int, err error) {
	l.lost.Add(int64(n))
	l.count.failed(plugin, n)
	l.log.Error("audit events are lost", "in", plugin, "events", n, "err", err)
}

// Begin the record of a request, before anybody knows whose it is.
func (l *Log) Begin(r *http.Request) *Record {
	if l == nil {
		return nil
	}
	id := r.Header.Get(Header)
	if id == "" {
		id = uuid.NewString()
		r.Header[Header] = []string{id} // so that who the request is passed on to writes the same
	}
	rec := &Record{log: l}
	rec.event.AuditID = types.UID(id)
	rec.event.RequestReceivedTimestamp = metav1.NewMicroTime(time.Now())
	return rec
}

// emit the event as it is at a stage.
func (rec *Record) emit(stage auditv1.Stage) error {
	rec.mu.Lock()
	if rec.decision.omits(stage) {
		rec.mu.Unlock()
		return nil
	}
	ev := rec.event
	ev.Stage = stage
	ev.StageTimestamp = metav1.NewMicroTime(time.Now())
	if stage == auditv1.StageRequestReceived {
		ev.StageTimestamp = ev.RequestReceivedTimestamp
	}
	ev.Annotations = maps.Clone(ev.Annotations)
	rec.mu.Unlock()
	rec.log.count.events.Inc()
	return rec.log.put(&ev)
}

type key struct{}

// With puts a record into a context, where Annotate finds it.
func With(ctx context.Context, rec *Record) context.Context {
	return context.WithValue(ctx, key{}, rec)
}

// From is the record of the request that a context belongs to, nil for none.
func From(ctx context.Context) *Record {
	rec, _ := ctx.Value(key{}).(*Record)
	return rec
}

// Annotate adds to the record of this request, if it has one. The first value of
// a key stays.
func Annotate(ctx context.Context, name, value string) { From(ctx).Annotate(name, value) }
