// Package table writes Tables, the form in which kubectl shows objects.
package table

import (
	"bufio"
	"encoding"
	"encoding/json"
	"io"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/api/wire/objectjson"
	"github.com/proa-dev/proa/internal/cache"
)

// Options of a table.
type Options struct {
	Kind    *api.Kind
	Version string // of meta.k8s.io
	Include metav1.IncludeObjectPolicy
	// Whole gives the document of an object, for Include = Object.
	Whole func(*cache.Item) ([]byte, error)
	// Shaped gives the object that the cells are made of; nil = the item's own.
	Shaped func(*cache.Item) (api.Object, error)
	// NoColumns leaves the column definitions out: later events of a watch.
	NoColumns bool
}

// usual are the columns of kinds that name none.
var usual = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
	{Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
}

// Columns of a kind.
func Columns(k *api.Kind) []metav1.TableColumnDefinition {
	if k.Row == nil {
		return usual
	}
	return k.Columns
}

func cells(k *api.Kind, obj api.Object) []any {
	if k.Row != nil {
		return k.Row(obj)
	}
	return []any{obj.GetName(), obj.GetCreationTimestamp().UTC().Format(time.RFC3339)}
}

// Write a table of items. meta is that of the list, or has the resourceVersion of
// the one object.
func Write(w io.Writer, o Options, meta metav1.ListMeta, items []*cache.Item) error {
	head, err := json.Marshal(struct {
		metav1.TypeMeta
		Metadata metav1.ListMeta                `json:"metadata"`
		Columns  []metav1.TableColumnDefinition `json:"columnDefinitions"`
	}{
		metav1.TypeMeta{Kind: "Table", APIVersion: "meta.k8s.io/" + o.Version}, meta, o.columns(),
	})
	if err != nil {
		return err
	}
	buf := append(head[:len(head)-1], `,"rows":[`...)
	var out *bufio.Writer
	if len(items) > fewRows {
		out = wire.Buffer(w)
		defer wire.Done(out)
	}
	for i, item := range items {
		if i > 0 {
			buf = append(buf, ',')
		}
		if buf, err = o.row(buf, item); err != nil {
			return err
		}
		if out != nil {
			if _, err := out.Write(buf); err != nil {
				return err
			}
			buf = out.AvailableBuffer() // where the next row mostly stays
		}
	}
	buf = append(buf, "]}\n"...)
	if out == nil {
		_, err := w.Write(buf)
		return err
	}
	out.Write(buf) // an error of the writer stays with it
	return out.Flush()
}

// fewRows are put together before they are written.
const fewRows = 20

func (o Options) columns() []metav1.TableColumnDefinition {
	if o.NoColumns {
		return nil
	}
	return Columns(o.Kind)
}

func (o Options) row(buf []byte, item *cache.Item) ([]byte, error) {
	var err error
	obj := item.Object
	if o.Shaped != nil {
		if obj, err = o.Shaped(item); err != nil {
			return nil, err
		}
	}
	buf = append(buf, `{"cells":[`...)
	for i, c := range cells(o.Kind, obj) {
		if i > 0 {
			buf = append(buf, ',')
		}
		if buf, err = appendCell(buf, c); err != nil {
			return nil, err
		}
	}
	buf = append(buf, `],"object":`...)
	switch o.Include {
	case metav1.IncludeNone:
		buf = append(buf, "null"...)
	case metav1.IncludeObject:
		doc, err := o.Whole(item)
		if err != nil {
			return nil, err
		}
		buf = append(buf, trim(doc)...)
	default:
		if buf, err = AppendPartial(buf, item, o.Version); err != nil {
			return nil, err
		}
	}
	return append(buf, '}'), nil
}

// appendCell appends a cell as encoding/json does.
func appendCell(buf []byte, cell any) ([]byte, error) {
	switch c := cell.(type) {
	case nil:
		return append(buf, "null"...), nil
	case string:
		return objectjson.AppendString(buf, c), nil
	case int:
		return strconv.AppendInt(buf, int64(c), 10), nil
	case int32:
		return strconv.AppendInt(buf, int64(c), 10), nil
	case int64:
		return strconv.AppendInt(buf, c, 10), nil
	case bool:
		return strconv.AppendBool(buf, c), nil
	case encoding.TextAppender:
		return appendText(buf, c)
	}
	b, err := json.Marshal(cell)
	return append(buf, b...), err
}

// appendText writes a cell that says itself what it is, as a rule in place.
func appendText(buf []byte, c encoding.TextAppender) ([]byte, error) {
	at := len(buf)
	buf, err := c.AppendText(append(buf, '"'))
	if text := buf[at+1:]; !objectjson.Plain(text) {
		return objectjson.AppendString(buf[:at], string(text)), err
	}
	return append(buf, '"'), err
}

func trim(doc []byte) []byte {
	for len(doc) > 0 && doc[len(doc)-1] == '\n' {
		doc = doc[:len(doc)-1]
	}
	return doc
}

// appendMetadata appends what an object's PartialObjectMetadata in JSON has behind its
// kind and version: its metadata and the bracket that ends it. They are part of the
// object's own JSON, if that is there; else they are made once.
func appendMetadata(dst []byte, item *cache.Item) ([]byte, error) {
	if whole, ok := item.HasEncoded(cache.JSONBody); ok && whole.Meta > 0 {
		return whole.AppendMetadata(dst), nil
	}
	if _, custom := item.Object.(*unstructured.Unstructured); !custom && !item.Room() {
		at := len(dst)
		dst, err := wire.AppendBody(dst, Partial(item.Object, schema.GroupVersionKind{}), wire.JSON)
		if err != nil {
			return dst, err
		}
		return append(dst[:at], dst[at+1:]...), nil // without the bracket in front
	}
	e, err := item.Encoded("metadata", func() (wire.Text, error) {
		if u, custom := item.Object.(*unstructured.Unstructured); custom {
			b, err := objectjson.Marshal(map[string]any{"metadata": u.Object["metadata"]})
			return wire.Cut(b, nil), err
		}
		return wire.BodyText(Partial(item.Object, schema.GroupVersionKind{}), wire.JSON)
	})
	if err != nil {
		return dst, err
	}
	if e.Meta == 0 { // a custom resource without any
		return append(dst, e.Bytes[1:]...), nil
	}
	return e.AppendMetadata(dst), nil
}

// AppendPartial appends an object's PartialObjectMetadata in JSON of a version of
// meta.k8s.io.
func AppendPartial(dst []byte, item *cache.Item, version string) ([]byte, error) {
	dst = append(dst, `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/`...)
	dst = append(append(dst, version...), `",`...)
	return appendMetadata(dst, item)
}

// Partial is the metadata of an object as an object of its own; the parts are shared.
func Partial(obj api.Object, gvk schema.GroupVersionKind) *metav1.PartialObjectMetadata {
	p := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: obj.GetName(), GenerateName: obj.GetGenerateName(), Namespace: obj.GetNamespace(), SelfLink: obj.GetSelfLink(),
		UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion(), Generation: obj.GetGeneration(),
		CreationTimestamp: obj.GetCreationTimestamp(), DeletionTimestamp: obj.GetDeletionTimestamp(),
		DeletionGracePeriodSeconds: obj.GetDeletionGracePeriodSeconds(), Labels: obj.GetLabels(), Annotations: obj.GetAnnotations(),
		OwnerReferences: obj.GetOwnerReferences(), Finalizers: obj.GetFinalizers(), ManagedFields: obj.GetManagedFields(),
	}}
	p.SetGroupVersionKind(gvk)
	return p
}
