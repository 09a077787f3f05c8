// Package negotiate reads Accept and Content-Type headers: in which media and
// in which form (the object, its metadata alone, a table) an answer is wanted.
package negotiate

import (
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api/wire"
)

// Form of an answer.
type Form int

const (
	Whole    Form = iota // the object as it is
	Table                // meta.k8s.io Table
	Metadata             // meta.k8s.io PartialObjectMetadata, or its list
)

// Want is what a client accepts.
type Want struct {
	Media  wire.Media
	Form   Form
	Meta   string // version of meta.k8s.io of a Table or PartialObjectMetadata: "v1", "v1beta1"
	Pretty bool
	Stream bool // asked for as a stream of watch events: ;stream=watch
}

// GVK of a Table or PartialObjectMetadata; list says that a list is answered.
func (w Want) GVK(list bool) schema.GroupVersionKind {
	kind := "Table"
	if w.Form == Metadata {
		kind = "PartialObjectMetadata"
		if list {
			kind += "List"
		}
	}
	return schema.GroupVersionKind{Group: "meta.k8s.io", Version: w.Meta, Kind: kind}
}

// Media types as errors list them.
const (
	json     = "application/json"
	yaml     = "application/yaml"
	protobuf = "application/vnd.kubernetes.protobuf"
)

var supported = []string{json, yaml, protobuf}

// Accept reads what a request wants. noProtobuf is for kinds that have no such form;
// transforms says whether tables and metadata can be answered at all. The error
// is a 406 Status.
func Accept(r *http.Request, noProtobuf, transforms bool) (Want, error) {
	header := r.Header.Get("Accept")
	if header == "" || header == json || header == "*/*" {
		return Want{Pretty: pretty(r)}, nil
	}
	if header == protobuf && !noProtobuf {
		return Want{Media: wire.Protobuf}, nil
	}
	for _, c := range clauses(header) {
		w, ok := c.want(noProtobuf, transforms)
		if !ok {
			continue
		}
		if !w.Pretty && w.Media == wire.JSON {
			w.Pretty = pretty(r)
		}
		return w, nil
	}
	accepted := supported
	if noProtobuf {
		accepted = supported[:2]
	}
	return Want{}, notAcceptable("only the following media types are accepted: " + strings.Join(accepted, ", "))
}

func notAcceptable(message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable, Message: message,
	}}
}

// ContentType reads what the body of a request is. The error is a 415 Status.
func ContentType(r *http.Request, noProtobuf bool) (wire.Media, error) {
	header := r.Header.Get("Content-Type")
	if header == "" || header == json {
		return wire.JSON, nil
	}
	m, err := wire.ParseMedia(header)
	if err != nil || m == wire.Protobuf && noProtobuf {
		accepted := supported
		if noProtobuf {
			accepted = supported[:2]
		}
		return m, Unsupported(header, accepted...)
	}
	return m, nil
}

// Unsupported is the 415 Status for a Content-Type.
func Unsupported(header string, accepted ...string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: fmt.Sprintf("the body of the request was in an unknown format - accepted media types include: %s", strings.Join(accepted, ", ")),
	}}
}

// pretty says whether a person reads the answer.
func pretty(r *http.Request) bool {
	if strings.Contains(r.URL.RawQuery, "pretty") {
		if p := r.URL.Query().Get("pretty"); p != "" {
			yes, _ := strconv.ParseBool(p)
			return yes
		}
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

// clause is one media range of an Accept header.
type clause struct {
	media  string
	params map[string]string
	q      float64
}

// clauses of a header, the most wanted first.
func clauses(header string) []clause {
	var all []clause
	for part := range strings.SplitSeq(header, ",") {
		fields := strings.Split(part, ";")
		c := clause{media: strings.ToLower(strings.TrimSpace(fields[0])), q: 1}
		for _, f := range fields[1:] {
			name, value, _ := strings.Cut(strings.TrimSpace(f), "=")
			value = strings.Trim(value, `"`)
			if name == "q" {
				if q, err := strconv.ParseFloat(value, 64); err == nil {
					c.q = q
				}
				continue
			}
			if c.params == nil {
				c.params = map[string]string{}
			}
			c.params[name] = value
		}
		if c.media != "" && c.q > 0 {
			all = append(all, c)
		}
	}
	sort.SliceStable(all, func(i, j int) bool {
		if all[i].q != all[j].q {
			return all[i].q > all[j].q
		}
		return stars(all[i].media) < stars(all[j].media)
	})
	return all
}

func stars(media string) int { return strings.Count(media, "*") }

func (c clause) want(noProtobuf, transforms bool) (Want, bool) {
	w := Want{}
	switch c.media {
	case json, "*/*", "application/*":
	case yaml, "application/x-yaml", "text/yaml":
		w.Media = wire.YAML
	case protobuf:
		if noProtobuf && c.params["as"] == "" {
			return w, false
		}
		w.Media = wire.Protobuf
	default:
		return w, false
	}
	if s := c.params["stream"]; s != "" {
		if s != "watch" {
			return w, false
		}
		w.Stream = true
	}
	w.Pretty = c.params["pretty"] == "1"
	as, group, version := c.params["as"], c.params["g"], c.params["v"]
	if as == "" && group == "" && version == "" {
		return w, true
	}
	if !transforms || group != "meta.k8s.io" || version != "v1" && version != "v1beta1" {
		return w, false
	}
	w.Meta = version
	switch as {
	case "Table":
		w.Form = Table
		return w, w.Media != wire.Protobuf
	case "PartialObjectMetadata", "PartialObjectMetadataList":
		w.Form = Metadata
		return w, true
	}
	return w, false
}
