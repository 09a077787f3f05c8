package apiserver

import (
	"context"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver/audit"
	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/negotiate"
	"github.com/proa-dev/proa/internal/apiserver/record"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
)

// writeWithin bounds one write: a client that waits longer has given up.
const writeWithin = 34 * time.Second

func custom(k api.Served) bool { return k.Encoding == api.JSON }

func (s *Server) get(w *response, r *http.Request, q *verbs.Request) {
	want, err := negotiate.Accept(r, custom(q.Kind), true)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if m := s.cfg.Makers[q.Kind.GroupResource()]; m != nil {
		s.getMade(w, r, q, m, want)
		return
	}
	item, err := s.verbs.Get(r.Context(), q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.writeItem(w, r, http.StatusOK, item, q.Kind, want)
}

func (s *Server) list(w *response, r *http.Request, q *verbs.Request, i *request.Info) {
	want, err := negotiate.Accept(r, custom(q.Kind), true)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if m := s.cfg.Makers[q.Kind.GroupResource()]; m != nil {
		s.listMade(w, r, q, m, i, want)
		return
	}
	o, err := s.listOptions(r, q.Kind, i)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	q.Name = ""
	list, err := s.verbs.List(r.Context(), q, o.ListOptions)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.writeList(w, r, list, q.Kind, want)
}

// body is the decoded body of a request.
func (s *Server) body(w *response, r *http.Request, q *verbs.Request, validation string) (api.Object, error) {
	media, err := negotiate.ContentType(r, custom(q.Kind))
	if err != nil {
		return nil, err
	}
	data, err := readBody(r)
	if err != nil {
		return nil, err
	}
	obj, warnings, err := wire.Decode(media, data, q.Kind, wire.ParseStrictness(validation))
	for _, text := range warnings {
		w.warn(text)
	}
	if err == nil && w.audit.Wants(audit.Metadata) {
		record.Sent(w.audit, obj, q.Kind)
	}
	return obj, err
}

func (s *Server) create(w *response, r *http.Request, q *verbs.Request) {
	want, err := negotiate.Accept(r, custom(q.Kind), !q.Kind.Virtual) // a review has no table
	if err != nil {
		s.fail(w, r, err)
		return
	}
	o, err := readWriteOptions(r, "CreateOptions")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	obj, err := s.body(w, r, q, o.validation)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	q.DryRun, q.Manager = len(o.dryRun) > 0, manager(o.manager, r)
	if s.cfg.Admission.Used() {
		q.Options = &metav1.CreateOptions{DryRun: o.dryRun, FieldManager: o.manager, FieldValidation: o.validation}
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeWithin)
	defer cancel()
	if q.Kind.Virtual {
		q.Name = obj.GetName()
		out, err := s.verbs.Post(ctx, q, obj)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.writeAnswer(w, r, http.StatusCreated, out, q.Kind, want)
		return
	}
	item, err := s.verbs.Create(ctx, q, obj)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.writeItem(w, r, http.StatusCreated, item, q.Kind, want)
}

// writeAnswer sends what an action returned: a Status, or an object of the kind.
func (s *Server) writeAnswer(w *response, r *http.Request, code int, out runtime.Object, k api.Served, want negotiate.Want) {
	gvk := k.GVK()
	switch out := out.(type) {
	case *metav1.Status:
		status, code := record.Coded(out, code)
		writeObject(w, r, code, record.StatusGVK, status, want)
		return
	case api.Object:
		if k.Shape != nil {
			shaped, err := verbs.Shaped(out, k)
			if err != nil {
				s.fail(w, r, err)
				return
			}
			writeObject(w, r, code, gvk, shaped, want)
			return
		}
	}
	writeObject(w, r, code, gvk, out, want)
}

func (s *Server) update(w *response, r *http.Request, q *verbs.Request) {
	want, err := negotiate.Accept(r, custom(q.Kind), true)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	o, err := readWriteOptions(r, "UpdateOptions")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	obj, err := s.body(w, r, q, o.validation)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	q.DryRun, q.Manager = len(o.dryRun) > 0, manager(o.manager, r)
	q.Options = &metav1.UpdateOptions{DryRun: o.dryRun, FieldManager: o.manager, FieldValidation: o.validation}
	ctx, cancel := context.WithTimeout(r.Context(), writeWithin)
	defer cancel()
	if q.Kind.CreateOnUpdate && q.Subresource == "" {
		if err := s.mayCreate(ctx, q); err != nil {
			s.fail(w, r, err)
			return
		}
	}
	item, created, err := s.verbs.Update(ctx, q, obj)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.writeItem(w, r, record.CodeOf(created), item, q.Kind, want)
}

// mayCreate refuses an update or apply of what is not there to who may not create it.
func (s *Server) mayCreate(ctx context.Context, q *verbs.Request) error {
	if s.cfg.Authorizer == nil || s.cfg.Cache.Of(q.Kind.Kind).Get(q.Namespace, q.Name) != nil {
		return nil
	}
	a := auth.Attributes{
		Verb: "create", Namespace: q.Namespace, Group: q.Kind.GVK().Group, Version: q.Kind.GVK().Version,
		Resource: q.Kind.Plural(), Subresource: q.Subresource, Name: q.Name, IsResource: true,
	}
	decision, why, err := s.cfg.Authorizer.Authorize(ctx, q.User, a)
	switch {
	case decision == auth.Allow:
		return nil
	case err != nil:
		return apierrors.NewInternalError(err)
	}
	return auth.Forbidden(q.User, a, why)
}

// patchTypes by their media type.
var patchTypes = []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType, types.ApplyYAMLPatchType}

// readPatch of a request: what to change, and how.
func (s *Server) readPatch(r *http.Request, q *verbs.Request) (verbs.Patch, error) {
	var p verbs.Patch
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	media = strings.TrimSpace(media)
	accepted := patchTypes
	if custom(q.Kind) {
		accepted = []types.PatchType{types.JSONPatchType, types.MergePatchType, types.ApplyYAMLPatchType}
	}
	names := make([]string, len(accepted))
	for n, t := range accepted {
		names[n] = string(t)
		if media == string(t) {
			p.Type = t
		}
	}
	if p.Type == "" {
		return p, negotiate.Unsupported(media, names...)
	}
	o, err := patchOptions(r, p.Type)
	if err != nil {
		return p, err
	}
	if p.Data, err = readBody(r); err != nil {
		return p, err
	}
	p.Force = o.Force != nil && *o.Force
	q.DryRun, q.Options, q.Strictness = len(o.DryRun) > 0, o, wire.ParseStrictness(o.FieldValidation)
	q.Manager = o.FieldManager
	if p.Type != types.ApplyYAMLPatchType {
		q.Manager = manager(o.FieldManager, r)
	}
	return p, nil
}

func (s *Server) patch(w *response, r *http.Request, q *verbs.Request) {
	want, err := negotiate.Accept(r, custom(q.Kind), true)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	p, err := s.readPatch(r, q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.audit.SentPatch(p.Data)
	ctx, cancel := context.WithTimeout(r.Context(), writeWithin)
	defer cancel()
	if p.Type == types.ApplyYAMLPatchType && q.Subresource == "" {
		if err := s.mayCreate(ctx, q); err != nil {
			s.fail(w, r, err)
			return
		}
	}
	item, created, err := s.verbs.Patch(ctx, q, p)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.writeItem(w, r, record.CodeOf(created), item, q.Kind, want)
}

// readDelete reads the options of a deletion.
func (s *Server) readDelete(r *http.Request, q *verbs.Request) (*metav1.DeleteOptions, error) {
	media, err := negotiate.ContentType(r, false)
	if err != nil {
		return nil, err
	}
	data, err := readBody(r)
	if err != nil {
		return nil, err
	}
	body, err := wire.DeleteOptions(media, data)
	if err != nil {
		return nil, err
	}
	o, err := deleteOptions(r, body)
	if err == nil {
		q.DryRun, q.Options = len(o.DryRun) > 0, o
	}
	return o, err
}

func (s *Server) delete(w *response, r *http.Request, q *verbs.Request) {
	want, err := negotiate.Accept(r, custom(q.Kind), true)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	o, err := s.readDelete(r, q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if r.ContentLength != 0 && w.audit.Wants(audit.Request) {
		record.Delete(w.audit, o)
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeWithin)
	defer cancel()
	item, gone, err := s.verbs.Delete(ctx, q, *o)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	code, status := record.Deleted(q, item, gone, o)
	if status != nil {
		want.Form = negotiate.Whole
		writeObject(w, r, code, record.StatusGVK, status, want)
		return
	}
	s.writeItem(w, r, code, item, q.Kind, want)
}

func (s *Server) deleteCollection(w *response, r *http.Request, q *verbs.Request, i *request.Info) {
	want, err := negotiate.Accept(r, custom(q.Kind), true)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	list, err := s.listOptions(r, q.Kind, i)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	o, err := s.readDelete(r, q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if r.ContentLength != 0 && w.audit.Wants(audit.Request) {
		record.Delete(w.audit, o)
	}
	q.Name = ""
	found, err := s.verbs.DeleteCollection(r.Context(), q, list.ListOptions, *o)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.writeList(w, r, found, q.Kind, want)
}

// partBody decodes the body of a subresource of another kind.
func (s *Server) partBody(w *response, r *http.Request, q *verbs.Request, sub *api.Subresource, validation string) (runtime.Object, error) {
	media, err := negotiate.ContentType(r, false)
	if err != nil {
		return nil, err
	}
	data, err := readBody(r)
	if err != nil {
		return nil, err
	}
	into := sub.Body()
	if len(data) == 0 && sub.Get == nil {
		return into, nil // an action whose body says nothing
	}
	warnings, err := wire.DecodeInto(media, data, sub.Kind, into, wire.ParseStrictness(validation), also[sub.Kind.Kind]...)
	for _, text := range warnings {
		w.warn(text)
	}
	if err == nil && w.audit.Wants(audit.Metadata) {
		record.Part(w.audit, into, sub.Kind)
	}
	return into, err
}

// also are older versions of bodies that say the same.
var also = map[string][]schema.GroupVersion{
	"Eviction": {{Group: "policy", Version: "v1beta1"}},
	"Scale":    {{Group: "extensions", Version: "v1beta1"}, {Group: "apps", Version: "v1beta1"}, {Group: "apps", Version: "v1beta2"}},
}

// post does an action of a subresource.
func (s *Server) post(w *response, r *http.Request, q *verbs.Request, sub *api.Subresource) {
	want, err := negotiate.Accept(r, false, false)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	o, err := readWriteOptions(r, "CreateOptions")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if sub.Body == nil || !s.verbs.HasAction(q.Kind.Kind, sub.Name) {
		s.fail(w, r, verbs.NoSuchPath())
		return
	}
	body, err := s.partBody(w, r, q, sub, o.validation)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if b, ok := body.(*corev1.Binding); ok && b.Namespace != "" && b.Namespace != q.Namespace {
		s.fail(w, r, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request"))
		return
	}
	q.DryRun, q.Manager = len(o.dryRun) > 0, manager(o.manager, r)
	q.Options = &metav1.CreateOptions{DryRun: o.dryRun, FieldManager: o.manager, FieldValidation: o.validation}
	ctx, cancel := context.WithTimeout(r.Context(), writeWithin)
	defer cancel()
	out, err := s.verbs.Post(ctx, q, body)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	k := api.Served{Kind: &api.Kind{GroupVersionKind: sub.Kind}}
	s.writeAnswer(w, r, http.StatusCreated, out, k, want)
}

func (s *Server) getPart(w *response, r *http.Request, q *verbs.Request, sub *api.Subresource) {
	want, err := negotiate.Accept(r, false, false)
	if err == nil {
		var out runtime.Object
		if out, err = s.verbs.GetPart(r.Context(), q); err == nil {
			writeObject(w, r, http.StatusOK, sub.Kind, out, want)
			return
		}
	}
	s.fail(w, r, err)
}

func (s *Server) updatePart(w *response, r *http.Request, q *verbs.Request, sub *api.Subresource) {
	want, err := negotiate.Accept(r, false, false)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	o, err := readWriteOptions(r, "UpdateOptions")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	body, err := s.partBody(w, r, q, sub, o.validation)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	q.DryRun, q.Manager = len(o.dryRun) > 0, manager(o.manager, r)
	q.Options = &metav1.UpdateOptions{DryRun: o.dryRun, FieldManager: o.manager, FieldValidation: o.validation}
	out, err := s.verbs.UpdatePart(r.Context(), q, body)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeObject(w, r, http.StatusOK, sub.Kind, out, want)
}

func (s *Server) patchPart(w *response, r *http.Request, q *verbs.Request, sub *api.Subresource) {
	want, err := negotiate.Accept(r, false, false)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	p, err := s.readPatch(r, q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.audit.SentPatch(p.Data)
	out, err := s.verbs.PatchPart(r.Context(), q, p)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeObject(w, r, http.StatusOK, sub.Kind, out, want)
}
