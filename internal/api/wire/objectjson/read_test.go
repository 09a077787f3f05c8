package objectjson

import (
	"encoding/json"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"
)

// agrees fails if a text is read, and differently from how sigs.k8s.io/json reads it.
// It says whether it is read.
func agrees[T any](t *testing.T, text string) bool {
	t.Helper()
	var got, want T
	if !Read([]byte(text), &got) {
		return false
	}
	problems, err := kjson.UnmarshalStrict([]byte(text), &want)
	if err != nil || len(problems) > 0 {
		t.Errorf("%s is read, but %v %v", text, err, problems)
	} else if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %#v\nwant %#v", text, got, want)
	}
	return true
}

func agreesAny(t *testing.T, text string) bool {
	t.Helper()
	got, ok := ReadAny([]byte(text))
	if !ok {
		return false
	}
	var want any
	problems, err := kjson.UnmarshalStrict([]byte(text), &want)
	if err != nil || len(problems) > 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %#v, want %#v %v %v", text, got, want, err, problems)
	}
	return true
}

const somePod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","labels":{"a":"b\"\u00e4"},"creationTimestamp":null,"deletionTimestamp":"2026-11-21T20:00:00+01:00",
	"managedFields":[{"manager":"m","time":"2026-11-21T20:00:00Z","fieldsV1":{"f:a":{".":{},"k:{\"b\":1}":{}}}}],"annotations":{},"finalizers":[]},
	"spec":{"containers":[{"name":"c","image":"ä","ports":[{"containerPort":80}],"resources":{"requests":{"cpu":"100m","memory":5}},
	"livenessProbe":{"httpGet":{"port":"http"},"periodSeconds":3},"readinessProbe":{"tcpSocket":{"port":80}},"stdin":true,"tty":false}],
	"activeDeadlineSeconds":9223372036854775807,"nodeSelector":null},"status":{}}`

func TestReads(t *testing.T) {
	if !agrees[corev1.Pod](t, somePod) {
		t.Error("a usual pod is left to the library")
	}
	for _, text := range []string{`{}`, " {\n\t} \r", `{"spec":null}`, `{"metadata":{"ownerReferences":[]}}`, `{"status":{"podIPs":[{"ip":"1"},{},null]}}`} {
		if !agrees[corev1.Pod](t, text) {
			t.Errorf("%s is left to the library", text)
		}
	}
	if !agrees[corev1.Secret](t, `{"data":{"a":"YQ==","b":null,"c":""},"stringData":{}}`) {
		t.Error("a Secret is left to the library")
	}
	for _, text := range []string{
		``, `x`, `[]`, `{`, `{}}`, `{} x`, `{"a":1}`, `{"spec":{},"spec":{}}`, `{"Spec":{}}`, `{"metadata":{"labels":{"a":"b","a":"c"}}}`,
		`{"metadata":{"name":1}}`, `{"metadata":{"generation":1.0}}`, `{"metadata":{"generation":1e3}}`, `{"metadata":{"generation":01}}`,
		`{"metadata":{"generation":9223372036854775808}}`, `{"metadata":{"name":"a` + "\n" + `"}}`, `{"metadata":{"name":"` + "\xff" + `"}}`,
		`{"metadata":{"creationTimestamp":"now"}}`, `{"metadata":{"creationTimestamp":"2026-11-21T20:00:00Z"null}}`, `{"metadata":{},}`, `{"metadata"}`,
	} {
		if agrees[corev1.Pod](t, text) {
			t.Errorf("%s is read", text)
		}
	}
	for text, read := range map[string]bool{
		`{"a":[1,-0,1.5,1e3,"x",true,false,null,{},[]]}`: true, `1 `: true, `[1.]`: false, `[.5]`: false, `[-]`: false, `[1e]`: false,
		`[01]`: false, `[1e999]`: false, `[12345678901234567890]`: true, `[1,]`: false, `{"a":1,"a":2}`: false, `[tru]`: false,
	} {
		if agreesAny(t, text) != read {
			t.Errorf("%s: read is not %v", text, read)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(somePod)
	f.Add(`{"metadata":{"name":"a","generation":-1},"spec":{"tolerations":[{"tolerationSeconds":1}],"overhead":{"a":"1"}}}`)
	f.Add(`{"a":[1,-0,1.5,1e3,"x",true,false,null,{},[]]}`)
	f.Fuzz(func(t *testing.T, text string) {
		agrees[corev1.Pod](t, text)
		agreesAny(t, text)
	})
}

func BenchmarkRead(b *testing.B) {
	text := []byte(somePod)
	b.Run("objectjson", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !Read(text, &corev1.Pod{}) {
				b.Fatal("not read")
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := kjson.UnmarshalStrict(text, &corev1.Pod{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	p := &corev1.Pod{}
	if !Read([]byte(somePod), p) {
		b.Fatal("not read")
	}
	b.Run("objectjson", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Marshal(p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(p); err != nil {
				b.Fatal(err)
			}
		}
	})
}
