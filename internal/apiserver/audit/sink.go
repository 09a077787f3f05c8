package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"

	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
)

// file writes one line for each event.
type file struct {
	mu     sync.Mutex
	out    io.Writer
	legacy bool // words instead of JSON
	buf    []byte
}

// typeMeta begins an event that stands alone.
const typeMeta = `{"kind":"Event","apiVersion":"audit.k8s.io/v1",`

func (f *file) put(all ...entry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buf = f.buf[:0]
	for _, e := range all {
		if f.legacy {
			ev := &auditinternal.Event{}
			if err := auditv1.Convert_v1_Event_To_audit_Event(e.event, ev, nil); err != nil {
				return err
			}
			f.buf = append(append(f.buf, audit.EventString(ev)...), '\n')
			continue
		}
		f.buf = append(append(append(f.buf, typeMeta...), e.json[1:]...), '\n')
	}
	_, err := f.out.Write(f.buf)
	if cap(f.buf) > 1<<20 { // once there was a large one
		f.buf = nil
	}
	return err
}

// noting is a sink that says what is lost in another.
type noting struct {
	to     sink
	plugin string
	log    *Log
}

func (n *noting) put(all ...entry) error {
	err := n.to.put(all...)
	if err != nil {
		n.log.failed(n.plugin, len(all), err)
	}
	return err
}

// careless is a sink whose failures are no reason to refuse a request.
type careless struct{ sink }

func (c careless) put(all ...entry) error {
	c.sink.put(all...) //nolint:errcheck // who has lost it has said so
	return nil
}

// truncate bounds the size of events, and of what is passed on at once.
type truncate struct {
	to       sink
	maxEvent int64
	maxBatch int64
	log      *Log
}

var errTooLarge = errors.New("the event is too large even without its objects")

func (t *truncate) put(all ...entry) error {
	var failed []error
	var batch []entry
	var size int64
	pass := func() {
		if len(batch) > 0 {
			failed = append(failed, t.to.put(batch...))
		}
		batch, size = nil, 0
	}
	for _, e := range all {
		if int64(len(e.json)) > t.maxEvent {
			var err error
			if e, err = shorten(e); err == nil && int64(len(e.json)) > t.maxEvent {
				err = errTooLarge
			}
			if err != nil {
				err = fmt.Errorf("audit event %s: %w", e.event.AuditID, err)
				t.log.failed(pluginTruncate, 1, err)
				failed = append(failed, err)
				continue
			}
		}
		if size+int64(len(e.json)) > t.maxBatch {
			pass()
		}
		batch, size = append(batch, e), size+int64(len(e.json))
	}
	pass()
	return errors.Join(failed...)
}

// shorten is an event without the objects, which says so.
func shorten(e entry) (entry, error) {
	ev := *e.event
	ev.RequestObject, ev.ResponseObject = nil, nil
	ev.Annotations = maps.Clone(ev.Annotations)
	if ev.Annotations == nil {
		ev.Annotations = map[string]string{}
	}
	ev.Annotations["audit.k8s.io/truncated"] = "true"
	text, err := json.Marshal(&ev)
	return entry{&ev, text}, err
}
