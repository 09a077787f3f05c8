package audit

import (
	"bytes"
	"encoding/json"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// Sent records the object that a request carries; render writes it as JSON, in
// the version it came in. obj may have no metadata.
func (rec *Record) Sent(obj any, render func() ([]byte, error)) {
	if !rec.Wants(Metadata) {
		return
	}
	rec.name(obj)
	if !rec.Wants(Request) {
		return
	}
	text, err := render()
	if err != nil {
		rec.log.log.Error("what a request carries could not be recorded", "audit", rec.ID(), "err", err)
		return
	}
	rec.sent(rec.pruned(text))
}

// name completes the reference to the object by what the object says itself.
func (rec *Record) name(obj any) {
	o, ok := obj.(metav1.Object)
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.event.ObjectRef == nil || !ok {
		return
	}
	ref := *rec.event.ObjectRef // events of earlier stages hold the old one
	if ref.Namespace == "" {
		ref.Namespace = o.GetNamespace()
	}
	if ref.Name == "" {
		ref.Name = o.GetName()
	}
	ref.UID, ref.ResourceVersion = o.GetUID(), o.GetResourceVersion()
	rec.event.ObjectRef = &ref
}

// SentPatch records a patch as it came.
func (rec *Record) SentPatch(patch []byte) {
	if !rec.Wants(Request) {
		return
	}
	if !json.Valid(patch) { // apply takes YAML
		if text, err := yaml.YAMLToJSON(patch); err == nil {
			patch = text
		} else {
			patch, _ = json.Marshal(string(patch))
		}
	}
	rec.sent(patch)
}

func (rec *Record) sent(text []byte) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.event.RequestObject = &runtime.Unknown{Raw: text, ContentType: runtime.ContentTypeJSON}
}

// Answered records the object that is answered; render writes it as JSON.
func (rec *Record) Answered(render func(to io.Writer) error) {
	if !rec.Wants(RequestResponse) {
		return
	}
	var b bytes.Buffer
	if err := render(&b); err != nil {
		rec.log.log.Error("what a request was answered could not be recorded", "audit", rec.ID(), "err", err)
		return
	}
	text := rec.pruned(b.Bytes())
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.event.ResponseObject = &runtime.Unknown{Raw: text, ContentType: runtime.ContentTypeJSON}
}

// pruned is a JSON document without managedFields, if the policy leaves them out:
// those of an object, of the items of a list, and of the objects of a table's rows.
func (rec *Record) pruned(text []byte) []byte {
	if !rec.decision.OmitManagedFields || !bytes.Contains(text, []byte(`"managedFields"`)) {
		return text
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var doc map[string]any
	if d.Decode(&doc) != nil {
		return text
	}
	prune := func(o any) {
		if m, ok := o.(map[string]any); ok {
			if meta, ok := m["metadata"].(map[string]any); ok {
				delete(meta, "managedFields")
			}
		}
	}
	prune(doc)
	if items, ok := doc["items"].([]any); ok {
		for _, item := range items {
			prune(item)
		}
	}
	if rows, ok := doc["rows"].([]any); ok {
		for _, row := range rows {
			if m, ok := row.(map[string]any); ok {
				prune(m["object"])
			}
		}
	}
	out, err := json.Marshal(doc)
	if err != nil {
		return text
	}
	return out
}
