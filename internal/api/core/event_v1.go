package core

import (
	"fmt"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/validate"
)

// eventsV1 is the newer shape of events: the same under other names.
func eventsV1() api.Shape {
	return api.Shape{
		GroupVersionKind: eventsv1.SchemeGroupVersion.WithKind("Event"),
		New:              func() api.Object { return &eventsv1.Event{} },
		NewList:          func() runtime.Object { return &eventsv1.EventList{} },
		From:             func(obj api.Object) api.Object { return eventToV1(obj.(*corev1.Event)) },
		To:               func(obj api.Object) api.Object { return eventFromV1(obj.(*eventsv1.Event)) },
		Validate:         api.Validates(func(ev, old *corev1.Event, _ string) field.ErrorList { return strictEvent(ev, old) }),
	}
}

func eventToV1(ev *corev1.Event) *eventsv1.Event {
	return &eventsv1.Event{
		ObjectMeta:               ev.ObjectMeta,
		EventTime:                ev.EventTime,
		Series:                   (*eventsv1.EventSeries)(ev.Series),
		ReportingController:      ev.ReportingController,
		ReportingInstance:        ev.ReportingInstance,
		Action:                   ev.Action,
		Reason:                   ev.Reason,
		Regarding:                ev.InvolvedObject,
		Related:                  ev.Related,
		Note:                     ev.Message,
		Type:                     ev.Type,
		DeprecatedSource:         ev.Source,
		DeprecatedFirstTimestamp: ev.FirstTimestamp,
		DeprecatedLastTimestamp:  ev.LastTimestamp,
		DeprecatedCount:          ev.Count,
	}
}

func eventFromV1(ev *eventsv1.Event) *corev1.Event {
	return &corev1.Event{
		ObjectMeta:          ev.ObjectMeta,
		EventTime:           ev.EventTime,
		Series:              (*corev1.EventSeries)(ev.Series),
		ReportingController: ev.ReportingController,
		ReportingInstance:   ev.ReportingInstance,
		Action:              ev.Action,
		Reason:              ev.Reason,
		InvolvedObject:      ev.Regarding,
		Related:             ev.Related,
		Message:             ev.Note,
		Type:                ev.Type,
		Source:              ev.DeprecatedSource,
		FirstTimestamp:      ev.DeprecatedFirstTimestamp,
		LastTimestamp:       ev.DeprecatedLastTimestamp,
		Count:               ev.DeprecatedCount,
	}
}

// strictEvent is what events.k8s.io/v1 asks for besides: the old fields are not
// used, and of an event only its series moves on.
func strictEvent(ev, old *corev1.Event) field.ErrorList {
	e := &validate.Errs{}
	at := validate.Root
	if old == nil || !reflect.DeepEqual(ev.Series, old.Series) {
		if s := ev.Series; s != nil && s.Count < 2 {
			e.Invalid(at("series.count"), "", "should be at least 2")
		}
		if s := ev.Series; s != nil && s.LastObservedTime.IsZero() {
			e.Required(at("series.lastObservedTime"), "")
		}
	}
	if old == nil {
		if ev.EventTime.IsZero() {
			e.Required(at("eventTime"), "")
		}
		if ev.Type != corev1.EventTypeNormal && ev.Type != corev1.EventTypeWarning {
			e.Invalid(at("type"), "", fmt.Sprintf("has invalid value: %v", ev.Type))
		}
		for name, set := range map[string]bool{
			"firstTimestamp": !ev.FirstTimestamp.IsZero(), "lastTimestamp": !ev.LastTimestamp.IsZero(),
			"count": ev.Count != 0, "source": ev.Source != (corev1.EventSource{}),
		} {
			if set {
				e.Invalid(at(name), "", "needs to be unset")
			}
		}
		return e.List()
	}
	e.Immutable(at("involvedObject"), ev.InvolvedObject, old.InvolvedObject)
	e.Immutable(at("reason"), ev.Reason, old.Reason)
	e.Immutable(at("message"), ev.Message, old.Message)
	e.Immutable(at("source"), ev.Source, old.Source)
	e.Immutable(at("firstTimestamp"), ev.FirstTimestamp, old.FirstTimestamp)
	e.Immutable(at("lastTimestamp"), ev.LastTimestamp, old.LastTimestamp)
	e.Immutable(at("count"), ev.Count, old.Count)
	e.Immutable(at("type"), ev.Type, old.Type)
	// Times are sent in microseconds.
	if micro(ev.EventTime) != micro(old.EventTime) {
		e.Invalid(at("eventTime"), ev.EventTime, validate.IsImmutable)
	}
	e.Immutable(at("action"), ev.Action, old.Action)
	e.Immutable(at("related"), ev.Related, old.Related)
	e.Immutable(at("reportingController"), ev.ReportingController, old.ReportingController)
	e.Immutable(at("reportingInstance"), ev.ReportingInstance, old.ReportingInstance)
	return e.List()
}

func micro(t metav1.MicroTime) time.Time { return t.Truncate(time.Microsecond).UTC() }
