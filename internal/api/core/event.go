package core

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/table"
	"github.com/proa-dev/proa/internal/api/validate"
)

// EventTTL is how long an event is kept after it was last written.
const EventTTL = time.Hour

func eventKind() *api.Kind {
	doc := corev1.Event{}.SwaggerDoc()
	return &api.Kind{
		GroupVersionKind: gvk("Event"),
		Resource:         "events",
		ShortNames:       []string{"ev"},
		New:              func() api.Object { return &corev1.Event{} },
		NewList:          func() runtime.Object { return &corev1.EventList{} },
		Validate:         checks(validateEvent),
		Columns: []metav1.TableColumnDefinition{
			table.Col("Last Seen", "string", doc["lastTimestamp"]),
			table.Col("Type", "string", doc["type"]),
			table.Col("Reason", "string", doc["reason"]),
			table.Col("Object", "string", doc["involvedObject"]),
			table.Wide("Subobject", "string", corev1.ObjectReference{}.SwaggerDoc()["fieldPath"]),
			table.Wide("Source", "string", doc["source"]),
			table.Col("Message", "string", doc["message"]),
			table.Wide("First Seen", "string", doc["firstTimestamp"]),
			table.Wide("Count", "string", doc["count"]),
			{Name: "Name", Type: "string", Format: "name", Priority: 1, Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
		},
		Row:    api.Rows(eventRow),
		Fields: api.FieldsOf(eventFields),
		Indexes: map[string]func(api.Object) []string{
			"involvedObject.uid": api.IndexOf(func(ev *corev1.Event) []string { return []string{string(ev.InvolvedObject.UID)} }),
		},
		Shapes:         []api.Shape{eventsV1()},
		CreateOnUpdate: true,
		TTL:            func(api.Object) time.Duration { return EventTTL },
	}
}

// eventFields has the names of both shapes.
func eventFields(ev *corev1.Event) fields.Set {
	source := ev.Source.Component
	if source == "" {
		source = ev.ReportingController
	}
	o := &ev.InvolvedObject
	set := fields.Set{
		"reason":              ev.Reason,
		"reportingComponent":  ev.ReportingController,
		"reportingController": ev.ReportingController,
		"source":              source,
		"type":                ev.Type,
	}
	for name, v := range map[string]string{
		"kind": o.Kind, "namespace": o.Namespace, "name": o.Name, "uid": string(o.UID),
		"apiVersion": o.APIVersion, "resourceVersion": o.ResourceVersion, "fieldPath": o.FieldPath,
	} {
		set["involvedObject."+name] = v
		set["regarding."+name] = v
	}
	return set
}

// validateEvent is what both shapes ask for; events.k8s.io is stricter.
func validateEvent(e *validate.Errs, ev, _ *corev1.Event, _ string) {
	at := validate.Root("involvedObject").Child("namespace")
	ns := ev.InvolvedObject.Namespace
	const other = "does not match event.namespace"
	if why := validate.Subdomain(ev.Namespace); why != nil {
		e.Invalids(validate.Root("namespace"), ev.Namespace, why)
	}
	if ev.EventTime.IsZero() { // written by an old client
		if ns == "" && ev.Namespace != metav1.NamespaceNone && ev.Namespace != metav1.NamespaceDefault || ns != "" && ns != ev.Namespace {
			e.Invalid(at, ns, other)
		}
		return
	}
	if ns == "" && ev.Namespace != metav1.NamespaceDefault && ev.Namespace != metav1.NamespaceSystem {
		e.Invalid(at, ns, other)
	}
	if ev.ReportingController == "" {
		e.Required(validate.Root("reportingComponent"), "")
	}
	validate.LabelKey(e, ev.ReportingController, validate.Root("reportingComponent"))
	bounded := func(name, v string, limit int, needed bool) {
		if v == "" && needed {
			e.Required(validate.Root(name), "")
		} else if len(v) > limit {
			e.Invalid(validate.Root(name), "", fmt.Sprintf("can have at most %v characters", limit))
		}
	}
	bounded("reportingInstance", ev.ReportingInstance, 128, true)
	bounded("action", ev.Action, 128, true)
	bounded("reason", ev.Reason, 128, true)
	bounded("message", ev.Message, 1024, false)
}

func eventRow(ev *corev1.Event) []any {
	first := table.Since(ev.FirstTimestamp)
	if ev.FirstTimestamp.IsZero() {
		first = table.Since(metav1.Time{Time: ev.EventTime.Time})
	}
	last := first
	if !ev.LastTimestamp.IsZero() {
		last = table.Since(ev.LastTimestamp)
	}
	count := ev.Count
	if ev.Series != nil {
		last = table.Since(metav1.Time{Time: ev.Series.LastObservedTime.Time})
		count = ev.Series.Count
	} else if count == 0 {
		count = 1
	}
	target := strings.ToLower(ev.InvolvedObject.Kind)
	if ev.InvolvedObject.Name != "" {
		target += "/" + ev.InvolvedObject.Name
	}
	return []any{last, ev.Type, ev.Reason, target, ev.InvolvedObject.FieldPath, eventSource(ev),
		strings.TrimSpace(ev.Message), first, int64(count), ev.Name}
}

func eventSource(ev *corev1.Event) string {
	component, host := ev.Source.Component, ev.Source.Host
	if component == "" {
		component = ev.ReportingController
	}
	if host == "" {
		host = ev.ReportingInstance
	}
	if host == "" {
		return component
	}
	return component + ", " + host
}
