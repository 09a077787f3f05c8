package managedfields

import (
	"bytes"
	"errors"
	"fmt"
	"sort"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// entry is one managed-fields entry, decoded.
type entry struct {
	identity
	apiVersion string
	set        *set
	time       *metav1.Time
	raw        *metav1.FieldsV1 // set as it was read, nil when it is another by now
	unread     bool             // set is still to be read from raw
}

// read makes sure that set is there.
func (e *entry) read() error {
	if !e.unread {
		return nil
	}
	s, err := parseSet(e.raw.GetRawBytes())
	if err != nil {
		return err
	}
	e.set, e.unread = s, false
	return nil
}

// touches says whether the entry could have anything in common with a set. It
// looks for the names on the way to each field in the text, so that what has nothing
// to do with a write (the spec's managers with a label or a status) is never read.
func (e *entry) touches(s *set) bool {
	if s.empty() {
		return false
	}
	return !e.unread || mentions(e.raw.GetRawBytes(), s)
}

// mentions says whether FieldsV1 could have a member of a set.
func mentions(raw []byte, s *set) bool {
	var room [128]byte
	for _, e := range s.elems {
		// What can be written in more than one way is not looked for.
		if plainText(e.key) && !bytes.Contains(raw, appendQuoted(room[:0], e.key, false)) {
			continue
		}
		if e.member || e.child != nil && mentions(raw, e.child) {
			return true
		}
	}
	return false
}

// plainText says that there is one way to write a key in JSON.
func plainText(key string) bool {
	for _, c := range []byte(key) {
		if c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

// identity tells entries apart. Of applied fields a manager has one set,
// whatever version it speaks; of updated ones it has one per version.
type identity struct {
	manager, subresource string
	operation            metav1.ManagedFieldsOperationType
	version              string // "" for Apply
}

func identify(manager, subresource, version string, op metav1.ManagedFieldsOperationType) identity {
	id := identity{manager: manager, subresource: subresource, operation: op}
	if op != metav1.ManagedFieldsOperationApply {
		id.version = version
	}
	return id
}

func (e *entry) applied() bool { return e.operation == metav1.ManagedFieldsOperationApply }

// change gives the entry another set.
func (e *entry) change(s *set) {
	if s != e.set {
		e.set, e.raw = s, nil
	}
}

// entries are the managers of an object, in no order.
type entries []entry

func (es entries) find(id identity) *entry {
	for i := range es {
		if es[i].identity == id {
			return &es[i]
		}
	}
	return nil
}

// remove takes out all for which gone says so.
func (es entries) remove(gone func(*entry) bool) entries {
	kept := es[:0]
	for i := range es {
		if !gone(&es[i]) {
			kept = append(kept, es[i])
		}
	}
	return kept
}

// decode reads the entries of an object. Whose bytes are also in trusted (the
// stored object) are written as we write them and need not be written again.
func decode(fields, trusted []metav1.ManagedFieldsEntry) (entries, error) {
	out := make(entries, 0, len(fields)+1)
	for i := range fields {
		f := &fields[i]
		switch f.Operation {
		case metav1.ManagedFieldsOperationApply, metav1.ManagedFieldsOperationUpdate:
		default:
			return nil, errors.New("operation must be `Apply` or `Update`")
		}
		if f.APIVersion == "" {
			return nil, errors.New("apiVersion must not be empty")
		}
		switch f.FieldsType {
		case "FieldsV1":
		case "":
			return nil, fmt.Errorf("missing fieldsType in managed fields entry %d", i)
		default:
			return nil, fmt.Errorf("invalid fieldsType %q in managed fields entry %d", f.FieldsType, i)
		}
		e := entry{identity: identify(f.Manager, f.Subresource, f.APIVersion, f.Operation), apiVersion: f.APIVersion, time: f.Time}
		if f.FieldsV1 != nil {
			raw := f.FieldsV1.GetRawBytes()
			e.raw, e.unread = f.FieldsV1, true
			if !known(raw, trusted) {
				if err := e.read(); err != nil {
					return nil, fmt.Errorf("error decoding managed fields entry %d: %w", i, err)
				}
				e.raw = nil
			}
		}
		if old := out.find(e.identity); old != nil {
			*old = e
		} else {
			out = append(out, e)
		}
	}
	return out, nil
}

func known(raw []byte, trusted []metav1.ManagedFieldsEntry) bool {
	for i := range trusted {
		if f := trusted[i].FieldsV1; f != nil {
			b := f.GetRawBytes()
			if len(b) == len(raw) && (len(b) == 0 || &b[0] == &raw[0] || bytes.Equal(b, raw)) {
				return true
			}
		}
	}
	return false
}

// encode is the other way, in the order in which entries are shown. The cache shares
// what stays in its place with the live object, whose entries these are, and writes
// into what does not: that is a copy, but for the bytes.
func (es entries) encode(live []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	if len(es) == 0 {
		return nil
	}
	out := make([]metav1.ManagedFieldsEntry, len(es))
	for i := range es {
		e := &es[i]
		raw := e.raw
		if raw == nil {
			raw = &metav1.FieldsV1{}
			raw.SetRawBytes(appendSet(make([]byte, 0, 2048), e.set)) // which copies them
		}
		out[i] = metav1.ManagedFieldsEntry{
			Manager: e.manager, Operation: e.operation, Subresource: e.subresource, APIVersion: e.apiVersion,
			Time: e.time, FieldsType: "FieldsV1", FieldsV1: raw,
		}
	}
	sort.Slice(out, func(i, j int) bool {
		p, q := &out[i], &out[j]
		if p.Operation != q.Operation {
			return p.Operation < q.Operation
		}
		if pt, qt := seconds(p.Time), seconds(q.Time); pt != qt {
			return pt < qt
		}
		if p.Manager != q.Manager {
			return p.Manager < q.Manager
		}
		if p.APIVersion != q.APIVersion {
			return p.APIVersion < q.APIVersion
		}
		return p.Subresource < q.Subresource
	})
	for i := range out {
		if raw := out[i].FieldsV1; raw != nil && (i >= len(live) || live[i].FieldsV1 != raw) {
			moved := *raw
			out[i].FieldsV1 = &moved
		}
	}
	return out
}

func seconds(t *metav1.Time) int64 {
	if t == nil {
		return 0
	}
	return t.Unix()
}

// stamp is a time as it is stored: whole seconds, UTC.
func stamp(now time.Time) *metav1.Time {
	t := metav1.NewTime(now.UTC().Truncate(time.Second))
	return &t
}

// maxUpdaters is how many managers that updated (did not apply) are told apart.
const maxUpdaters = 10

// cap merges the oldest updaters, per version, into the manager
// "ancient-changes" until there are few enough.
func (es entries) cap() (entries, error) {
	left := 0
	for i := range es {
		if !es[i].applied() {
			left++
		}
	}
	if left <= maxUpdaters {
		return es, nil
	}
	var updaters []entry
	for i := range es {
		if err := es[i].read(); err != nil {
			return nil, err
		}
		if !es[i].applied() {
			updaters = append(updaters, es[i])
		}
	}
	sort.Slice(updaters, func(i, j int) bool {
		a, b := &updaters[i], &updaters[j]
		if at, bt := seconds(a.time), seconds(b.time); at != bt {
			return at < bt
		}
		return a.sortKey() < b.sortKey()
	})
	first := map[string]identity{}
	for _, u := range updaters {
		if left <= maxUpdaters {
			break
		}
		oldest, again := first[u.apiVersion]
		if !again {
			first[u.apiVersion] = u.identity
			continue
		}
		bucket := identify("ancient-changes", "", u.apiVersion, metav1.ManagedFieldsOperationUpdate)
		if es.find(bucket) == nil {
			old := es.find(oldest)
			old.identity = bucket
		}
		b := es.find(bucket)
		b.change(union(u.set, b.set))
		b.time = u.time
		es = es.remove(func(e *entry) bool { return e.identity == u.identity && u.identity != bucket })
		left--
	}
	return es, nil
}

// sortKey orders managers of the same time as upstream's identifiers do: JSON
// of the entry in the order manager, operation, apiVersion, subresource.
func (e *entry) sortKey() string {
	return string(appendQuoted(nil, e.manager, true)) + string(e.operation) + e.version + e.subresource
}
