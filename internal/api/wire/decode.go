package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire/objectjson"
)

// Strictness says what becomes of unknown and duplicate fields.
type Strictness int

const (
	Warn   Strictness = iota // returned as warnings
	Ignore                   // dropped
	Strict                   // an error
)

// ParseStrictness reads the fieldValidation parameter of a request. Values other
// than Ignore and Strict are Warn, the default; refusing bad ones is for the
// validation of the options.
func ParseStrictness(fieldValidation string) Strictness {
	switch fieldValidation {
	case metav1.FieldValidationIgnore:
		return Ignore
	case metav1.FieldValidationStrict:
		return Strict
	}
	return Warn
}

// Decode reads the body of a request for a served kind and gives its storage
// shape (or, if the kind has a Convert, the version that it is in), with defaults,
// and TypeMeta empty unless it is unstructured. Errors are BadRequest StatusErrors
// that name the kind and the field.
func Decode(m Media, data []byte, served api.Served, s Strictness) (api.Object, []string, error) {
	shape := served.Shape
	create := served.Kind.New
	if shape != nil {
		create = shape.New
	}
	obj := create()
	warnings, err := DecodeInto(m, data, served.GVK(), obj, s)
	if err != nil {
		return nil, nil, err
	}
	if served.Prune != nil {
		more, err := prune(served, obj, s)
		if err != nil {
			return nil, nil, refuse(err, served.GVK(), served.GVK(), data)
		}
		warnings = append(warnings, more...)
	}
	if served.Convert != nil { // a write works on the version that it is in
		if served.Default != nil {
			served.Default(obj)
		}
		return obj, warnings, nil
	}
	return toStorage(served.Kind, shape, obj), warnings, nil
}

// prune drops the fields that a schema does not know, and warns of them or
// refuses them.
func prune(served api.Served, obj api.Object, s Strictness) ([]string, error) {
	unknown, err := served.Prune(obj)
	if err != nil || s == Ignore || len(unknown) == 0 {
		return nil, err
	}
	problems := make([]error, len(unknown))
	for i, path := range unknown {
		problems[i] = fmt.Errorf("unknown field %q", path)
	}
	if s == Strict {
		return nil, runtime.NewStrictDecodingError(problems)
	}
	return warningsOf(problems), nil
}

// toStorage defaults a decoded object and brings it into its storage shape.
func toStorage(kind *api.Kind, shape *api.Shape, obj api.Object) api.Object {
	if shape != nil {
		if shape.Default != nil {
			shape.Default(obj)
		}
		obj = shape.To(obj)
	}
	if kind.Default != nil {
		kind.Default(obj)
	}
	return obj
}

// DecodeInto reads the body of a request into a fresh object that is expected to
// be a gvk, without defaults: a Scale, a Binding, a review. A body that names no
// kind is taken for one; also lists further group-versions that a body may name
// (an Eviction of policy/v1beta1). TypeMeta is emptied.
func DecodeInto(m Media, data []byte, gvk schema.GroupVersionKind, into runtime.Object, s Strictness, also ...schema.GroupVersion) ([]string, error) {
	found, problems, err := decode(m, data, gvk, into, s != Ignore)
	if err == nil && found.Kind != gvk.Kind {
		err = fmt.Errorf("the kind in the data (%s) does not match the expected kind (%s)", found.Kind, gvk.Kind)
	}
	if err != nil {
		return nil, refuse(err, found, gvk, data)
	}
	accepted := found.GroupVersion() == gvk.GroupVersion()
	for _, gv := range also {
		accepted = accepted || found.GroupVersion() == gv
	}
	if !accepted {
		return nil, errors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%v)",
			found.GroupVersion(), gvk.GroupVersion()))
	}
	if len(problems) > 0 && s == Strict {
		return nil, refuse(runtime.NewStrictDecodingError(problems), found, gvk, data)
	}
	if _, custom := into.(*unstructured.Unstructured); !custom {
		into.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	return warningsOf(problems), nil
}

// DeleteOptions reads the body of a delete request: nil if there is none. Bodies
// may name any group-version, for clients send the one of the resource.
func DeleteOptions(m Media, data []byte) (*metav1.DeleteOptions, error) {
	if len(data) == 0 {
		return nil, nil
	}
	want := schema.GroupVersionKind{Version: "v1", Kind: "DeleteOptions"}
	opts := &metav1.DeleteOptions{}
	found, _, err := decode(m, data, want, opts, false)
	if err == nil && found.Kind != want.Kind {
		err = fmt.Errorf("decoded object cannot be converted to DeleteOptions")
	}
	if err != nil {
		return nil, refuse(err, found, want, data)
	}
	opts.TypeMeta = metav1.TypeMeta{}
	return opts, nil
}

// decode unmarshals data and says what kind it is, by itself or by default, and
// what a strict reader finds wrong with it.
func decode(m Media, data []byte, gvk schema.GroupVersionKind, into runtime.Object, strict bool) (found schema.GroupVersionKind, problems []error, err error) {
	if m == Protobuf {
		found, err = decodeProtobuf(data, into)
		if err == nil || found.Kind != "" {
			found = defaultKind(found, gvk)
		}
		return found, nil, err
	}
	text := data
	if m == YAML {
		if text, err = yaml.YAMLToJSON(data); err != nil {
			return schema.GroupVersionKind{}, nil, err
		}
		if strict {
			// Duplicates are gone from the JSON.
			if _, err := yaml.YAMLToJSONStrict(data); err != nil {
				problems = append(problems, err)
			}
		}
	}
	u, custom := into.(*unstructured.Unstructured)
	more, err := fromJSON(text, into, strict)
	problems = append(problems, more...)
	if err != nil {
		found, unreadable := interpret(text)
		if unreadable != nil {
			return schema.GroupVersionKind{}, nil, unreadable
		}
		return defaultKind(found, gvk), nil, err
	}
	found, err = kindOf(into)
	if custom && err == nil {
		if u.Object == nil || found.Kind == "" {
			return schema.GroupVersionKind{}, nil, runtime.NewMissingKindErr(string(data))
		}
		return found, problems, nil // its version is read off it, so it has to say it
	}
	return defaultKind(found, gvk), problems, err
}

// fromJSON reads text into an object, which is zero in all that the text has, or
// unstructured. problems are what a strict reader finds.
func fromJSON(text []byte, into any, strict bool) (problems []error, err error) {
	if u, custom := into.(*unstructured.Unstructured); custom {
		if v, ok := objectjson.ReadAny(text); ok {
			if u.Object, ok = v.(map[string]any); ok {
				return nil, nil
			}
		}
		u.Object = map[string]any{}
		into = &u.Object
	} else {
		// What is read in vain is in places that are taken back with the object.
		obj := reflect.ValueOf(into).Elem()
		undo := obj.SetZero
		if !obj.IsZero() {
			before := reflect.New(obj.Type()).Elem()
			before.Set(obj)
			undo = func() { obj.Set(before) }
		}
		if objectjson.Read(text, into) {
			return nil, nil
		}
		undo()
	}
	if strict {
		return kjson.UnmarshalStrict(text, into)
	}
	return nil, kjson.UnmarshalCaseSensitivePreserveInts(text, into)
}

func decodeProtobuf(data []byte, into runtime.Object) (schema.GroupVersionKind, error) {
	none := schema.GroupVersionKind{}
	msg, ok := into.(message)
	switch {
	case !ok:
		return none, fmt.Errorf("%T has no protobuf form, send application/json", into)
	case len(data) == 0:
		return none, fmt.Errorf("empty data")
	case !bytes.HasPrefix(data, []byte(envelope)):
		return none, fmt.Errorf("provided data does not appear to be a protobuf message, expected prefix %v", []byte(envelope))
	case len(data) == len(envelope):
		return none, fmt.Errorf("empty body")
	}
	var unknown runtime.Unknown
	if err := unknown.Unmarshal(data[len(envelope):]); err != nil {
		return none, err
	}
	gv, err := schema.ParseGroupVersion(unknown.APIVersion)
	if err != nil {
		return none, err
	}
	msg.Reset()
	return gv.WithKind(unknown.Kind), msg.Unmarshal(unknown.Raw)
}

// kindOf reads the TypeMeta of a decoded object. A bad apiVersion is an error,
// which GroupVersionKind would hide.
func kindOf(obj runtime.Object) (schema.GroupVersionKind, error) {
	switch t := obj.GetObjectKind().(type) {
	case *metav1.TypeMeta:
		gv, err := schema.ParseGroupVersion(t.APIVersion)
		return gv.WithKind(t.Kind), err
	case *unstructured.Unstructured:
		gv, err := schema.ParseGroupVersion(t.GetAPIVersion())
		return gv.WithKind(t.GetKind()), err
	}
	return obj.GetObjectKind().GroupVersionKind(), nil
}

// interpret finds the kind of JSON that could not be decoded.
func interpret(text []byte) (schema.GroupVersionKind, error) {
	var head metav1.TypeMeta
	if err := json.Unmarshal(text, &head); err != nil {
		return schema.GroupVersionKind{}, fmt.Errorf("couldn't get version/kind; json parse error: %v", err)
	}
	gv, err := schema.ParseGroupVersion(head.APIVersion)
	return gv.WithKind(head.Kind), err
}

// defaultKind fills in what a body left out of its kind.
func defaultKind(found, want schema.GroupVersionKind) schema.GroupVersionKind {
	if found.Kind == "" {
		found.Kind = want.Kind
	}
	if found.Version == "" && (found.Group == "" || found.Group == want.Group) {
		found.Group, found.Version = want.Group, want.Version
	}
	return found
}

// refuse is the answer to a body that cannot be read.
func refuse(err error, found, want schema.GroupVersionKind, data []byte) error {
	if found.Kind != "" {
		return errors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", found.Kind, found.Version, want.Kind, err))
	}
	return errors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, err, summary(data)))
}

func summary(data []byte) string {
	const most = 30
	short, more := data, ""
	if len(data) > most {
		short, more = data[:most], " ..."
	}
	switch {
	case len(data) == 0:
		return "<empty>"
	case data[0] == '{':
		return string(short) + more
	}
	return hex.EncodeToString(short) + more
}

// warningsOf spells problems as warnings: those of the YAML reader, which come
// as one error of many lines, one by one.
func warningsOf(problems []error) []string {
	var warnings []string
	for _, p := range problems {
		text := p.Error()
		text = strings.TrimPrefix(text, "error converting YAML to JSON: ")
		text = strings.TrimPrefix(text, "yaml: unmarshal errors:\n")
		for line := range strings.SplitSeq(text, "\n") {
			warnings = append(warnings, strings.TrimSpace(line))
		}
	}
	return warnings
}
