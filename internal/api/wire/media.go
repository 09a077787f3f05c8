// Package wire turns objects into bytes and back: JSON and YAML, protobuf, and
// the form in which they are stored.
//
// An object's bytes are made once, by Body, without apiVersion and kind. The
// functions that glue (Document, List, Event) put those same bytes into the
// answer to a get, into a list and into a watch event, so that whoever keeps a
// body beside an object never encodes it twice.
package wire

import (
	"fmt"
	"mime"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Media is a form in which objects travel.
type Media int

const (
	JSON Media = iota
	Protobuf
	YAML
)

// ContentType is what a Content-Type header says of the media.
func (m Media) ContentType() string {
	switch m {
	case Protobuf:
		return "application/vnd.kubernetes.protobuf"
	case YAML:
		return "application/yaml"
	}
	return "application/json"
}

// StreamType is what a Content-Type header says of a stream of watch events.
func (m Media) StreamType() string {
	switch m {
	case Protobuf:
		return "application/vnd.kubernetes.protobuf;stream=watch"
	case YAML:
		return "application/yaml;stream=watch"
	}
	return "application/json"
}

// ParseMedia reads a media type, with or without parameters. An empty one is
// JSON.
func ParseMedia(contentType string) (Media, error) {
	if contentType == "" || contentType == "application/json" {
		return JSON, nil
	}
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		t = strings.TrimSpace(contentType)
	}
	switch t {
	case "application/json":
		return JSON, nil
	case "application/vnd.kubernetes.protobuf":
		return Protobuf, nil
	case "application/yaml", "application/x-yaml", "text/yaml":
		return YAML, nil
	}
	return JSON, fmt.Errorf("the media type %q is not one of application/json, application/yaml, application/vnd.kubernetes.protobuf", contentType)
}

// envelope is what every protobuf document begins with.
const envelope = "k8s\x00"

// apiVersion as a document spells it: "v1", "apps/v1".
func apiVersion(k schema.GroupVersionKind) string {
	if k.Group == "" {
		return k.Version
	}
	return k.Group + "/" + k.Version
}
