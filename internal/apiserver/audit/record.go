package audit

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/validation"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

// Record is what is known of one request so far. All methods may be called on
// nil, which records nothing, and by several goroutines.
type Record struct {
	log *Log

	mu       sync.Mutex
	event    auditv1.Event
	decision Decision
	state    atomic.Int32 // a state
	long     bool         // the request says when its answer starts
	answered bool         // the answer has started
	refused  bool         // nobody knows who asked
	later    map[string]leveled
}

// States of a record: annotations are taken before the policy was asked.
const (
	undecided int32 = iota
	on
	off
)

// leveled is an annotation that is recorded from a level on.
type leveled struct {
	level Level
	value string
}

// ID of the record, "" for none.
func (rec *Record) ID() string {
	if rec == nil {
		return ""
	}
	return string(rec.event.AuditID)
}

// Decide what is recorded of a request, now that it is known who asks for what,
// and record that it has come. long requests also record that their answer has
// started. The error is that of a sink whose mode is blocking-strict: the request
// has to be refused.
func (rec *Record) Decide(r *http.Request, u *request.User, i *request.Info, long bool) error {
	if rec == nil || !rec.decide(r, u, i, long) {
		return nil
	}
	err := rec.emit(auditv1.StageRequestReceived)
	if err != nil {
		rec.log.count.rejected.Inc()
	}
	return err
}

// Unauthenticated decides for a request of nobody known: its answer alone is recorded.
func (rec *Record) Unauthenticated(r *http.Request, i *request.Info) {
	if rec != nil && rec.decide(r, nil, i, true) {
		rec.refused = true
	}
}

func (rec *Record) decide(r *http.Request, u *request.User, i *request.Info, long bool) bool {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.decision = rec.log.policy.Decide(u, i)
	rec.log.count.levels[rec.decision.Level].Inc()
	if rec.decision.Level == None {
		rec.state.Store(off)
		return false
	}
	rec.long = long
	ev := &rec.event
	ev.Level = auditv1.Level(rec.decision.Level.String())
	ev.Verb, ev.RequestURI, ev.UserAgent = i.Verb, r.URL.RequestURI(), userAgent(r)
	for _, ip := range utilnet.SourceIPs(r) {
		ev.SourceIPs = append(ev.SourceIPs, ip.String())
	}
	if u != nil {
		ev.User = userInfo(u)
	}
	if i.IsResource {
		ev.ObjectRef = &auditv1.ObjectReference{
			Namespace: i.Namespace, Name: i.Name, Resource: i.Resource, Subresource: i.Subresource, APIGroup: i.Group, APIVersion: i.Version,
		}
	}
	for name, a := range rec.later {
		rec.annotate(name, a)
	}
	rec.later = nil
	rec.state.Store(on)
	return true
}

func userAgent(r *http.Request) string {
	const longest = 1024
	if ua := r.UserAgent(); len(ua) <= longest {
		return ua
	}
	return r.UserAgent()[:longest] + "...TRUNCATED"
}

func userInfo(u *request.User) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups}
	if len(u.Extra) > 0 {
		info.Extra = map[string]authenticationv1.ExtraValue{}
		for k, v := range u.Extra {
			info.Extra[k] = v
		}
	}
	return info
}

// Wants says whether this request is recorded at a level or a higher one.
func (rec *Record) Wants(l Level) bool {
	return rec != nil && rec.state.Load() == on && rec.decision.Level >= l
}

// Annotate adds an annotation. The first value of a name stays.
func (rec *Record) Annotate(name, value string) { rec.AnnotateAt(Metadata, name, value) }

// AnnotateAt adds an annotation that is recorded from a level on.
func (rec *Record) AnnotateAt(l Level, name, value string) {
	if rec == nil {
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	switch rec.state.Load() {
	case undecided:
		if _, ok := rec.later[name]; !ok {
			if rec.later == nil {
				rec.later = map[string]leveled{}
			}
			rec.later[name] = leveled{l, value}
		}
	case on:
		rec.annotate(name, leveled{l, value})
	}
}

func (rec *Record) annotate(name string, a leveled) {
	if rec.decision.Level < a.level {
		return
	}
	if _, ok := rec.event.Annotations[name]; ok {
		return
	}
	if rec.event.Annotations == nil {
		rec.event.Annotations = map[string]string{}
	}
	rec.event.Annotations[name] = a.value
}

// Qualified says whether admission may use a name for an annotation: a DNS
// subdomain, a slash and a name.
func Qualified(name string) bool {
	return strings.Count(name, "/") == 1 && len(validation.IsQualifiedName(name)) == 0
}

// Impersonated records whom the request is made as; constraint is the verb of
// KEP-5284 that allowed it, "" for plain impersonation.
func (rec *Record) Impersonated(u *request.User, constraint string) {
	if !rec.Wants(Metadata) {
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	info := userInfo(u)
	rec.event.ImpersonatedUser = &info
	if constraint != "" {
		rec.event.AuthenticationMetadata = &auditv1.AuthenticationMetadata{ImpersonationConstraint: constraint}
	}
}

// Status records the outcome that the client is told. What else the Status holds
// has no bound and is left out.
func (rec *Record) Status(s *metav1.Status) {
	if !rec.Wants(Metadata) {
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.event.ResponseStatus = &metav1.Status{Status: s.Status, Message: s.Message, Reason: s.Reason, Details: s.Details, Code: s.Code}
}

// Header records the code of the answer, which starts now.
func (rec *Record) Header(code int) {
	if !rec.Wants(Metadata) {
		return
	}
	rec.mu.Lock()
	if rec.answered {
		rec.mu.Unlock()
		return
	}
	rec.answered = true
	s := metav1.Status{}
	if rec.event.ResponseStatus != nil {
		s = *rec.event.ResponseStatus
	}
	s.Code = int32(code)
	rec.event.ResponseStatus = &s
	rec.mu.Unlock()
	if rec.long {
		rec.emit(auditv1.StageResponseStarted) //nolint:errcheck // put has logged it; the answer is under way
	}
}

// slow is from when on a record says how long the request took.
const slow = 500 * time.Millisecond

// End records that the request was answered.
func (rec *Record) End() {
	if !rec.Wants(Metadata) || rec.refused {
		return
	}
	rec.mu.Lock()
	silent := rec.event.ResponseStatus == nil
	if silent {
		rec.event.ResponseStatus = &metav1.Status{Code: http.StatusOK, Status: metav1.StatusSuccess, Message: "Connection closed early"}
	}
	if took := time.Since(rec.event.RequestReceivedTimestamp.Time); took > slow && !rec.long {
		rec.annotate("apiserver.latency.k8s.io/total", leveled{Metadata, took.String()})
	}
	rec.mu.Unlock()
	if silent && rec.long {
		rec.emit(auditv1.StageResponseStarted) //nolint:errcheck // put has logged it
	}
	rec.emit(auditv1.StageResponseComplete) //nolint:errcheck // put has logged it
}

// Panic records that the server failed badly.
func (rec *Record) Panic(p any) {
	if !rec.Wants(Metadata) || rec.refused {
		return
	}
	rec.mu.Lock()
	rec.event.ResponseStatus = &metav1.Status{
		Code: http.StatusInternalServerError, Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError,
		Message: fmt.Sprintf("APIServer panic'd: %v", p),
	}
	rec.mu.Unlock()
	rec.emit(auditv1.StagePanic) //nolint:errcheck // put has logged it
	rec.state.Store(off)         // what the client is told now is no answer
}
