package wire

import (
	"bufio"
	"bytes"
	"io"
	"iter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/yaml"
)

// YAML is for people: it is made from JSON, whole, and not made fast.

func listYAML(w io.Writer, gvk schema.GroupVersionKind, meta *metav1.ListMeta, bodies iter.Seq2[Text, error]) error {
	var whole bytes.Buffer
	out := bufio.NewWriter(&whole)
	if err := listJSON(out, gvk, meta, bodies); err != nil {
		return err
	}
	out.Flush()
	text, err := yaml.JSONToYAML(whole.Bytes())
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

func eventYAML(dst []byte, event watch.EventType, gvk schema.GroupVersionKind, body Text) []byte {
	text, err := yaml.JSONToYAML(Event(nil, event, gvk, body, JSON))
	if err != nil { // a body is JSON of ours
		return dst
	}
	return append(append(dst, "---\n"...), text...)
}
