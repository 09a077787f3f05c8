package wire

import (
	"bytes"
	"iter"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/proa-dev/proa/internal/api"
)

var pods = &api.Kind{
	GroupVersionKind: schema.GroupVersionKind{Version: "v1", Kind: "Pod"},
	Resource:         "pods",
	New:              func() api.Object { return &corev1.Pod{} },
	NewList:          func() runtime.Object { return &corev1.PodList{} },
	Default: api.Of(func(p *corev1.Pod) {
		if p.Spec.RestartPolicy == "" {
			p.Spec.RestartPolicy = corev1.RestartPolicyAlways
		}
	}),
}

var widgets = &api.Kind{
	GroupVersionKind: schema.GroupVersionKind{Group: "example.org", Version: "v1", Kind: "Widget"},
	Resource:         "widgets",
	Encoding:         api.JSON,
	New:              func() api.Object { return &unstructured.Unstructured{} },
}

func somePod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", ResourceVersion: "7", Labels: map[string]string{"a": "<&>"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}, RestartPolicy: corev1.RestartPolicyNever},
	}
}

// upstream is apimachinery's own serializer for a media.
func upstream(t *testing.T, m Media) runtime.SerializerInfo {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	info, ok := runtime.SerializerInfoForMediaType(serializer.NewCodecFactory(scheme).SupportedMediaTypes(), m.ContentType())
	if !ok {
		t.Fatalf("no serializer for %s", m.ContentType())
	}
	return info
}

func seq(bodies ...[]byte) iter.Seq2[Text, error] {
	return func(yield func(Text, error) bool) {
		for _, b := range bodies {
			if !yield(Plain(b), nil) {
				return
			}
		}
	}
}

func lengths(bodies ...[]byte) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for _, b := range bodies {
			if !yield(len(b), nil) {
				return
			}
		}
	}
}

func TestDocumentsAreUpstreamsBytes(t *testing.T) {
	for _, m := range []Media{JSON, Protobuf, YAML} {
		pod := somePod("a")
		got, err := Encode(pods.GroupVersionKind, pod, m)
		if err != nil {
			t.Fatal(err)
		}
		pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
		var want bytes.Buffer
		if err := upstream(t, m).Serializer.Encode(pod, &want); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s:\n got %q\nwant %q", m.ContentType(), got, want.Bytes())
		}
		again, err := Body(pod, m)
		if err != nil {
			t.Fatal(err)
		}
		if doc, _ := Document(pods.GroupVersionKind, Plain(again), m); !bytes.Equal(doc, got) {
			t.Errorf("%s: a body with TypeMeta is not the one without", m.ContentType())
		}
	}
}

func TestListsAreUpstreamsBytes(t *testing.T) {
	for _, m := range []Media{JSON, Protobuf, YAML} {
		for n := range 3 {
			list := &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []corev1.Pod{}}
			list.ResourceVersion = "12"
			var bodies [][]byte
			for i := range n {
				pod := somePod(strings.Repeat("x", 1+i*300))
				list.Items = append(list.Items, *pod)
				b, err := Body(pod, m)
				if err != nil {
					t.Fatal(err)
				}
				bodies = append(bodies, b)
			}
			var got, want bytes.Buffer
			gvk := schema.GroupVersionKind{Version: "v1", Kind: "PodList"}
			if err := List(&got, gvk, &list.ListMeta, seq(bodies...), lengths(bodies...), m); err != nil {
				t.Fatal(err)
			}
			if err := upstream(t, m).Serializer.Encode(list, &want); err != nil {
				t.Fatal(err)
			}
			if got.String() != want.String() {
				t.Errorf("%s of %d:\n got %q\nwant %q", m.ContentType(), n, got.String(), want.String())
			}
		}
	}
}

func TestWatchEventsAreUpstreamsBytes(t *testing.T) {
	for _, m := range []Media{JSON, Protobuf} {
		pod := somePod("a")
		body, err := Body(pod, m)
		if err != nil {
			t.Fatal(err)
		}
		got := Event([]byte("before"), watch.Added, pods.GroupVersionKind, Plain(body), m)
		pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
		info := upstream(t, m)
		var object, want bytes.Buffer
		if err := info.Serializer.Encode(pod, &object); err != nil {
			t.Fatal(err)
		}
		event := &metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Raw: object.Bytes()}}
		frames := info.StreamSerializer.Framer.NewFrameWriter(&want)
		if err := info.StreamSerializer.Serializer.Encode(event, frames); err != nil {
			t.Fatal(err)
		}
		if string(got) != "before"+want.String() {
			t.Errorf("%s:\n got %q\nwant %q", m.ContentType(), got, want.String())
		}
	}
}

func TestStorage(t *testing.T) {
	stored, err := EncodeStorage(pods, somePod("a"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(stored, []byte("k8s\x00\n\t\n\x02v1\x12\x03Pod")) {
		t.Errorf("the head is not upstream's: %q", stored[:20])
	}
	want := somePod("a")
	want.ResourceVersion = "41"
	got, err := DecodeStorage(pods, stored, 41)
	if err != nil || !reflect.DeepEqual(got, api.Object(want)) {
		t.Errorf("got %v, %v", got, err)
	}
	got, err = DecodeStorage(pods, []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"}}`), 3)
	if err != nil {
		t.Fatal(err)
	}
	if p := got.(*corev1.Pod); p.Name != "b" || p.ResourceVersion != "3" || p.Spec.RestartPolicy != "Always" || p.Kind != "" {
		t.Errorf("JSON value became %+v", p)
	}
	if _, err := DecodeStorage(pods, []byte(`{"apiVersion":"v1","kind":"Node"}`), 3); err == nil {
		t.Error("a Node was read as a Pod")
	}

	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.org/v1", "kind": "Widget",
		"metadata": map[string]any{"name": "w", "resourceVersion": "3"}, "spec": map[string]any{"n": int64(5), "f": 1.5}}}
	stored, err = EncodeStorage(widgets, u)
	if err != nil {
		t.Fatal(err)
	}
	if s := `{"apiVersion":"example.org/v1","kind":"Widget","metadata":{"name":"w"},"spec":{"f":1.5,"n":5}}` + "\n"; string(stored) != s {
		t.Errorf("got %s want %s", stored, s)
	}
	got, err = DecodeStorage(widgets, stored, 4)
	u.SetResourceVersion("4")
	if err != nil || !reflect.DeepEqual(got, api.Object(u)) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct {
		name, body, want string
		media            Media
	}{
		{"empty", ``, `the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)`, JSON},
		{"array", `[]`, `the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type v1.TypeMeta (5b5d)`, JSON},
		{"kind", `{"apiVersion":"v1","kind":"Node"}`, `Node in version "v1" cannot be handled as a Pod: the kind in the data (Node) does not match the expected kind (Pod)`, JSON},
		{"version", `{"apiVersion":"apps/v1","kind":"Pod"}`, `the API version in the data (apps/v1) does not match the expected API version (v1)`, JSON},
		{"type", `{"apiVersion":"v1","kind":"Pod","spec":{"containers":5}}`, `Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field PodSpec.spec.containers of type []v1.Container`, JSON},
		{"unknown", `{"spec":{"foo":1,"containers":[{"nam":"x"}]}}`, `Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.foo", unknown field "spec.containers[0].nam"`, JSON},
		{"duplicate", `{"spec":{"hostNetwork":true,"hostNetwork":true}}`, `Pod in version "v1" cannot be handled as a Pod: strict decoding error: duplicate field "spec.hostNetwork"`, JSON},
		{"yaml duplicate", "spec:\n  hostIPC: true\n  hostIPC: true\n  x: 1\n", `Pod in version "v1" cannot be handled as a Pod: strict decoding error: yaml: unmarshal errors:
  line 3: key "hostIPC" already set in map, unknown field "spec.x"`, YAML},
		{"not protobuf", `{}`, `the object provided is unrecognized (must be of type Pod): provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] ({})`, Protobuf},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := Decode(c.media, []byte(c.body), api.Served{Kind: pods}, Strict)
			if err == nil || strings.Join(strings.Fields(err.Error()), " ") != strings.Join(strings.Fields(c.want), " ") {
				t.Errorf("\n got %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestDecodeWarns(t *testing.T) {
	obj, warnings, err := Decode(YAML, []byte("kind: Pod\nmetadata: {name: a}\nspec:\n  hostIPC: true\n  hostIPC: true\n  x: 1\n"), api.Served{Kind: pods}, Warn)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`line 5: key "hostIPC" already set in map`, `unknown field "spec.x"`}
	if !reflect.DeepEqual(warnings, want) {
		t.Errorf("got %q want %q", warnings, want)
	}
	if p := obj.(*corev1.Pod); p.Name != "a" || p.Kind != "" || p.Spec.RestartPolicy != "Always" {
		t.Errorf("got %+v", p)
	}
	if _, warnings, _ := Decode(JSON, []byte(`{"x":1}`), api.Served{Kind: pods}, Ignore); warnings != nil {
		t.Errorf("ignored, but got %q", warnings)
	}
}

func TestDecodeCustom(t *testing.T) {
	served := api.Served{Kind: widgets}
	if _, _, err := Decode(JSON, []byte(`{"metadata":{"name":"w"}}`), served, Warn); err == nil || !strings.Contains(err.Error(), "Object 'Kind' is missing") {
		t.Errorf("got %v", err)
	}
	obj, _, err := Decode(JSON, []byte(`{"apiVersion":"example.org/v1","kind":"Widget","metadata":{"name":"w"}}`), served, Strict)
	if err != nil || obj.GetName() != "w" || obj.GetObjectKind().GroupVersionKind() != widgets.GroupVersionKind {
		t.Errorf("got %v, %v", obj, err)
	}
	if _, err := Body(obj, Protobuf); err == nil {
		t.Error("a custom resource has a protobuf form")
	}
}

func TestDecodeOtherBodies(t *testing.T) {
	var e policyv1.Eviction
	v1 := policyv1.SchemeGroupVersion.WithKind("Eviction")
	body := []byte(`{"apiVersion":"policy/v1beta1","kind":"Eviction","metadata":{"name":"p"}}`)
	if _, err := DecodeInto(JSON, body, v1, &e, Strict); err == nil {
		t.Error("v1beta1 was taken for v1")
	}
	if _, err := DecodeInto(JSON, body, v1, &e, Strict, policyv1beta1.SchemeGroupVersion); err != nil || e.Name != "p" || e.Kind != "" {
		t.Errorf("got %v, %v", e, err)
	}
	opts, err := DeleteOptions(JSON, []byte(`{"kind":"DeleteOptions","apiVersion":"apps/v1","gracePeriodSeconds":3}`))
	if err != nil || *opts.GracePeriodSeconds != 3 {
		t.Errorf("got %v, %v", opts, err)
	}
	if opts, err := DeleteOptions(JSON, nil); opts != nil || err != nil {
		t.Errorf("got %v, %v", opts, err)
	}
	if _, err := DeleteOptions(JSON, []byte(`{"kind":"Pod"}`)); err == nil {
		t.Error("a Pod was taken for DeleteOptions")
	}
}

func FuzzDecode(f *testing.F) {
	pb, _ := Encode(pods.GroupVersionKind, somePod("a"), Protobuf)
	js, _ := Encode(pods.GroupVersionKind, somePod("a"), JSON)
	ya, _ := Encode(pods.GroupVersionKind, somePod("a"), YAML)
	f.Add(int(Protobuf), pb)
	f.Add(int(JSON), js)
	f.Add(int(YAML), ya)
	f.Add(int(JSON), []byte(`{"apiVersion":"a/b/c","metadata":{"creationTimestamp":"x"}}`))
	f.Fuzz(func(t *testing.T, media int, data []byte) {
		m := Media(uint(media) % 3)
		for _, kind := range []*api.Kind{pods, widgets} {
			obj, _, err := Decode(m, data, api.Served{Kind: kind}, Warn)
			if err != nil {
				continue
			}
			stored, err := EncodeStorage(kind, obj)
			if err != nil {
				continue // not everything read can be written: a map with bad values
			}
			if _, err := DecodeStorage(kind, stored, 1); err != nil {
				t.Fatalf("what was stored cannot be read: %v\n%q", err, stored)
			}
		}
		_, _ = DeleteOptions(m, data)
		_, _ = DecodeStorage(pods, data, 1)
	})
}

// TestDecodeIntoLeavesTheRest: also when something about the text is odd.
func TestDecodeIntoLeavesTheRest(t *testing.T) {
	for _, text := range []string{`{"spec":{"nodeName":"n"}}`, `{"spec":{"nodeName":"n","unknown":1}}`, `{"spec":{"nodeName":"x"},"spec":{"nodeName":"n"}}`} {
		p := somePod("a")
		p.Spec = corev1.PodSpec{}
		if _, err := DecodeInto(JSON, []byte(text), pods.GroupVersionKind, p, Warn); err != nil {
			t.Fatal(err)
		}
		if p.Spec.NodeName != "n" || p.Name != "a" || p.Labels["a"] != "<&>" {
			t.Errorf("%s: %+v", text, p)
		}
	}
}
