// Package record tells the audit record of a request what the request carries and
// what it is answered, and says what that is where it is no object. Requests over
// HTTP and calls in this process are recorded by the same functions; they are called
// only where somebody wants to know.
package record

import (
	"errors"
	"io"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
	"github.com/proa-dev/proa/internal/cache"
)

// Annotations of the audit record: whether a request was allowed, and why.
const (
	Decision = "authorization.k8s.io/decision"
	Reason   = "authorization.k8s.io/reason"
)

// ErrNotStored is what a request is told whose audit record, without which nothing may
// be done, was not taken.
func ErrNotStored() error {
	return apierrors.NewInternalError(errors.New("failed to store audit event"))
}

// Sent records the object in a body, which is in the version of storage; k is what
// it is called there.
func Sent(rec *audit.Record, obj runtime.Object, k api.Served) {
	rec.Sent(obj, func() ([]byte, error) {
		if o, ok := obj.(api.Object); ok {
			shaped, err := verbs.Shaped(o, k)
			if err != nil {
				return nil, err
			}
			obj = shaped
		}
		return encode(k.GVK(), obj)
	})
}

// Part records a body of another kind than the resource's.
func Part(rec *audit.Record, obj runtime.Object, gvk schema.GroupVersionKind) {
	rec.Sent(obj, func() ([]byte, error) { return encode(gvk, obj) })
}

// Delete records the body of a deletion.
func Delete(rec *audit.Record, o *metav1.DeleteOptions) {
	Part(rec, o, schema.GroupVersionKind{Group: "meta.k8s.io", Version: "v1", Kind: "DeleteOptions"})
}

func encode(gvk schema.GroupVersionKind, obj runtime.Object) ([]byte, error) {
	if _, custom := obj.(runtime.Unstructured); custom {
		gvk = schema.GroupVersionKind{}
	}
	return wire.Encode(gvk, obj, wire.JSON)
}

// Answer records an object that is answered, and of a Status what is bounded.
func Answer(rec *audit.Record, gvk schema.GroupVersionKind, obj runtime.Object) {
	if status, ok := obj.(*metav1.Status); ok {
		rec.Status(status)
	}
	answered(rec, func() ([]byte, error) { return encode(gvk, obj) })
}

// Item records a stored object that is answered.
func Item(rec *audit.Record, item *cache.Item, k api.Served) {
	answered(rec, func() ([]byte, error) { return verbs.AppendDocument(nil, item, k, wire.JSON) })
}

func answered(rec *audit.Record, render func() ([]byte, error)) {
	rec.Answered(func(to io.Writer) error {
		doc, err := render()
		if err == nil {
			_, err = to.Write(doc)
		}
		return err
	})
}

// List records what a list has found.
func List(rec *audit.Record, list *verbs.List, k api.Served) {
	gvk := k.GVK()
	gvk.Kind += "List"
	meta := metav1.ListMeta{ResourceVersion: strconv.FormatInt(list.Revision, 10), Continue: list.Continue, RemainingItemCount: list.Remaining}
	rec.Answered(func(to io.Writer) error {
		var scratch []byte
		body := func(item *cache.Item) (wire.Text, error) { return verbs.Listed(item, k, wire.JSON, &scratch) }
		return wire.List(to, gvk, &meta, verbs.Each(list, body), nil, wire.JSON)
	})
}

// StatusGVK is the kind of errors and of many answers.
var StatusGVK = schema.GroupVersionKind{Version: "v1", Kind: "Status"}

// StatusOf an error.
func StatusOf(err error) metav1.Status {
	status := metav1.Status{}
	var known apierrors.APIStatus
	if errors.As(err, &known) {
		status = known.Status()
	} else {
		status = metav1.Status{Message: err.Error()}
	}
	if status.Code == 0 {
		status.Code = http.StatusInternalServerError
	}
	if status.Status == "" {
		status.Status = metav1.StatusFailure
	}
	status.TypeMeta = metav1.TypeMeta{}
	return status
}

// returnsDeleted are the kinds whose deletion answers with the object; others
// answer with a Status.
var returnsDeleted = map[string]bool{
	"pods": true, "services": true, "serviceaccounts": true, "persistentvolumes": true, "persistentvolumeclaims": true,
	"podtemplates": true, "resourcequotas": true,
}

// Deleted is what a deletion is answered: a code, and a Status; nil = the object.
func Deleted(q *verbs.Request, item *cache.Item, gone bool, o *metav1.DeleteOptions) (code int, status *metav1.Status) {
	code = http.StatusOK
	if !gone && o.OrphanDependents != nil && !*o.OrphanDependents {
		code = http.StatusAccepted
	}
	if gone && !(q.Kind.Group == "" && returnsDeleted[q.Kind.Resource]) {
		status = &metav1.Status{Status: metav1.StatusSuccess, Details: &metav1.StatusDetails{
			Name: q.Name, Group: q.Kind.GVK().Group, Kind: q.Kind.Plural(), UID: item.Object.GetUID(),
		}}
	}
	return code, status
}

// CodeOf a write, which may have created what it was about.
func CodeOf(created bool) int {
	if created {
		return http.StatusCreated
	}
	return http.StatusOK
}

// Coded is a Status that an action has returned, with the code that it is answered by:
// its own, or that which is usual.
func Coded(s *metav1.Status, usual int) (*metav1.Status, int) {
	if s.Code == 0 && s.Status == metav1.StatusSuccess {
		copied := *s
		copied.Code = int32(usual)
		return &copied, usual
	}
	if s.Code != 0 {
		usual = int(s.Code)
	}
	return s, usual
}
