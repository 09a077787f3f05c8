package apiserver

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/apiserver/verbs"
)

// query of a request, without cost when there is none.
func query(r *http.Request) url.Values {
	if r.URL.RawQuery == "" {
		return nil
	}
	return r.URL.Query()
}

// truth reads a boolean parameter as upstream does: present means true, unless
// it says false or 0.
func truth(q url.Values, name string) bool {
	v, ok := q[name]
	if !ok || len(v) == 0 {
		return false
	}
	return v[0] != "false" && v[0] != "0"
}

// number reads an integer parameter; nil when it is not there.
func number(q url.Values, name string) (*int64, error) {
	text := q.Get(name)
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return &n, nil
}

// listOptions of a list, watch or deletecollection.
type listOptions struct {
	verbs.ListOptions
	watch       bool
	bookmarks   bool
	sendInitial *bool
	timeout     *int64
}

func (s *Server) listOptions(r *http.Request, k api.Served, i *request.Info) (o listOptions, err error) {
	q := query(r)
	o.watch = i.Verb == "watch"
	if q == nil {
		return o, s.named(&o, k, i)
	}
	if o.Selector, err = s.verbs.ParseSelector(k, q.Get("labelSelector"), q.Get("fieldSelector")); err != nil {
		return o, err
	}
	if o.timeout, err = number(q, "timeoutSeconds"); err != nil {
		return o, err
	}
	limit, err := number(q, "limit")
	if err != nil {
		return o, err
	}
	if limit != nil {
		o.Limit = *limit
	}
	o.ResourceVersion, o.Match, o.Continue = q.Get("resourceVersion"), metav1.ResourceVersionMatch(q.Get("resourceVersionMatch")), q.Get("continue")
	o.bookmarks = truth(q, "allowWatchBookmarks")
	if q.Get("sendInitialEvents") != "" {
		yes := truth(q, "sendInitialEvents")
		o.sendInitial = &yes
	}
	if all := o.check(); len(all) > 0 {
		return o, apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: "ListOptions"}, "", all)
	}
	return o, s.named(&o, k, i)
}

// named narrows to the object that a path names: /watch/…/NAME, or ?watch on one.
func (s *Server) named(o *listOptions, k api.Served, i *request.Info) error {
	if len(i.Parts) < 2 {
		return nil
	}
	want := "metadata.name=" + i.Name
	if o.Fields != nil && !o.Fields.Empty() {
		if name, ok := o.Fields.RequiresExactMatch("metadata.name"); !ok || name != i.Name {
			return apierrors.NewBadRequest("fieldSelector metadata.name doesn't match requested name")
		}
		return nil
	}
	sel, err := s.verbs.ParseSelector(k, "", want)
	o.Fields = sel.Fields
	return err
}

func (o *listOptions) check() (all field.ErrorList) {
	forbid := func(name, why string) { all = append(all, field.Forbidden(field.NewPath(name), why)) }
	match := o.Match
	const exact, notOlder = metav1.ResourceVersionMatchExact, metav1.ResourceVersionMatchNotOlderThan
	if o.watch {
		if o.sendInitial != nil && match != notOlder {
			forbid("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
		}
		if match != "" {
			if o.sendInitial == nil {
				forbid("resourceVersionMatch", "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
			}
			if match != notOlder {
				all = append(all, field.NotSupported(field.NewPath("resourceVersionMatch"), match, []string{string(notOlder)}))
			}
			if o.Continue != "" {
				forbid("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
			}
		}
		return all
	}
	if match != "" {
		if o.ResourceVersion == "" {
			forbid("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided")
		}
		if o.Continue != "" {
			forbid("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
		}
		if match != exact && match != notOlder {
			all = append(all, field.NotSupported(field.NewPath("resourceVersionMatch"), match, []string{string(exact), string(notOlder), ""}))
		}
		if match == exact && o.ResourceVersion == "0" {
			forbid("resourceVersionMatch", `resourceVersionMatch "exact" is forbidden for resourceVersion "0"`)
		}
	}
	if o.sendInitial != nil {
		forbid("sendInitialEvents", "sendInitialEvents is forbidden for list")
	}
	return all
}

// writeOptions are the parameters of create and update.
type writeOptions struct {
	dryRun              []string
	manager, validation string
}

func readWriteOptions(r *http.Request, kind string) (o writeOptions, err error) {
	q := query(r)
	if q == nil {
		return o, nil
	}
	o.dryRun, o.manager, o.validation = q["dryRun"], q.Get("fieldManager"), q.Get("fieldValidation")
	all := metavalidation.ValidateFieldManager(o.manager, field.NewPath("fieldManager"))
	all = append(all, metavalidation.ValidateDryRun(field.NewPath("dryRun"), o.dryRun)...)
	all = append(all, metavalidation.ValidateFieldValidation(field.NewPath("fieldValidation"), o.validation)...)
	if len(all) > 0 {
		err = apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: kind}, "", all)
	}
	return o, err
}

// patchOptions are the parameters of a patch.
func patchOptions(r *http.Request, t types.PatchType) (*metav1.PatchOptions, error) {
	q := query(r)
	o := &metav1.PatchOptions{DryRun: q["dryRun"], FieldManager: q.Get("fieldManager"), FieldValidation: q.Get("fieldValidation")}
	if q.Get("force") != "" {
		yes := truth(q, "force")
		o.Force = &yes
	}
	if all := metavalidation.ValidatePatchOptions(o, t); len(all) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: "PatchOptions"}, "", all)
	}
	return o, nil
}

// deleteOptions from the body, or else from the query.
func deleteOptions(r *http.Request, body *metav1.DeleteOptions) (*metav1.DeleteOptions, error) {
	o := body
	if o == nil {
		o = &metav1.DeleteOptions{}
		q := query(r)
		var err error
		if o.GracePeriodSeconds, err = number(q, "gracePeriodSeconds"); err != nil {
			return nil, err
		}
		if q.Get("orphanDependents") != "" {
			yes := truth(q, "orphanDependents")
			o.OrphanDependents = &yes
		}
		if p := metav1.DeletionPropagation(q.Get("propagationPolicy")); p != "" {
			o.PropagationPolicy = &p
		}
		o.DryRun = q["dryRun"]
		if uid, rv := q.Get("uid"), q.Get("resourceVersion"); uid != "" || rv != "" && r.URL.Query().Has("preconditions") {
			o.Preconditions = &metav1.Preconditions{}
			if uid != "" {
				u := types.UID(uid)
				o.Preconditions.UID = &u
			}
		}
	}
	if all := metavalidation.ValidateDeleteOptions(o); len(all) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: "DeleteOptions"}, "", all)
	}
	return o, nil
}

// manager names who writes: as the request says, or else the client's program.
func manager(given string, r *http.Request) string {
	if given != "" {
		return given
	}
	agent, _, _ := strings.Cut(r.UserAgent(), "/")
	plain := len(agent) <= metavalidation.FieldManagerMaxLength
	for i := 0; plain && i < len(agent); i++ {
		plain = agent[i] >= ' ' && agent[i] < 0x7f
	}
	if plain && agent != "" {
		return agent
	}
	var b strings.Builder
	for _, c := range agent {
		if !unicode.IsPrint(c) {
			continue
		}
		if b.Len()+utf8.RuneLen(c) > metavalidation.FieldManagerMaxLength {
			break
		}
		b.WriteRune(c)
	}
	if b.Len() == 0 {
		return "unknown"
	}
	return b.String()
}

// maxBody of a request: what upstream takes.
const maxBody = 3 << 20

// readBody of a request; too large a one is a 413 Status.
func readBody(r *http.Request) ([]byte, error) {
	tooLarge := func() error {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
	}
	if r.ContentLength > maxBody {
		return nil, tooLarge()
	}
	if n := r.ContentLength; n >= 0 {
		b := make([]byte, n)
		if _, err := io.ReadFull(r.Body, b); err != nil {
			return nil, apierrors.NewBadRequest("the body of the request could not be read: " + err.Error())
		}
		return b, nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, apierrors.NewBadRequest("the body of the request could not be read: " + err.Error())
	}
	if len(b) > maxBody {
		return nil, tooLarge()
	}
	return slices.Clip(b), nil
}
