package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/proa-dev/proa/internal/apiserver/auth/metricstest"
	"github.com/proa-dev/proa/internal/apiserver/auth/webhooktest"
	"github.com/proa-dev/proa/internal/apiserver/request"
)

func stageOf(s string) auditv1.Stage { return auditv1.Stage(s) }

var discard = slog.New(slog.DiscardHandler)

// recorder keeps events.
type recorder struct {
	mu  sync.Mutex
	all []*auditv1.Event
}

func (r *recorder) put(e ...entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range e {
		r.all = append(r.all, one.event)
	}
	return nil
}

func (r *recorder) stages() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var s []string
	for _, e := range r.all {
		s = append(s, string(e.Stage))
	}
	return strings.Join(s, " ")
}

func record(t *testing.T, rules string) (*Record, *recorder, *http.Request) {
	t.Helper()
	r := &recorder{}
	l := newLog(policy(t, rules), discard)
	l.sinks = []sink{r}
	req := httptest.NewRequest("POST", "/api/v1/namespaces/ns/secrets?dryRun=All", nil)
	return l.Begin(req), r, req
}

var (
	ann    = &request.User{Name: "ann", UID: "1", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}
	create = &request.Info{Verb: "create", Path: "/api/v1/namespaces/ns/secrets", IsResource: true, Version: "v1", Resource: "secrets", Namespace: "ns"}
)

func TestStages(t *testing.T) {
	all := "rules: [{level: Metadata}]"
	for name, c := range map[string]struct {
		rules string
		do    func(rec *Record, r *http.Request)
		want  string
	}{
		"ordinary": {all, func(rec *Record, r *http.Request) {
			rec.Decide(r, ann, create, false)
			rec.Header(201)
			rec.End()
		}, "RequestReceived ResponseComplete"},
		"long": {all, func(rec *Record, r *http.Request) {
			rec.Decide(r, ann, create, true)
			rec.Header(200)
			rec.Header(500) // too late
			rec.End()
		}, "RequestReceived ResponseStarted ResponseComplete"},
		"long, and nothing was answered": {all, func(rec *Record, r *http.Request) {
			rec.Decide(r, ann, create, true)
			rec.End()
		}, "RequestReceived ResponseStarted ResponseComplete"},
		"panic": {all, func(rec *Record, r *http.Request) {
			rec.Decide(r, ann, create, false)
			rec.Panic("oh")
			rec.Header(500)
			rec.End()
		}, "RequestReceived Panic"},
		"nobody known": {all, func(rec *Record, r *http.Request) {
			rec.Unauthenticated(r, create)
			rec.Header(401)
			rec.End()
		}, "ResponseStarted"},
		"left out": {"omitStages: [RequestReceived]\nrules: [{level: Metadata, omitStages: [ResponseComplete]}]", func(rec *Record, r *http.Request) {
			rec.Decide(r, ann, create, true)
			rec.Header(200)
			rec.End()
		}, "ResponseStarted"},
		"none": {"rules: [{level: None}]", func(rec *Record, r *http.Request) {
			rec.Decide(r, ann, create, false)
			rec.Annotate("a", "b")
			rec.Header(200)
			rec.End()
		}, ""},
	} {
		rec, got, r := record(t, c.rules)
		c.do(rec, r)
		if got.stages() != c.want {
			t.Errorf("%s: %q, want %q", name, got.stages(), c.want)
		}
	}
}

func TestEvent(t *testing.T) {
	rec, got, r := record(t, "rules: [{level: RequestResponse}]")
	r.Header.Set("User-Agent", strings.Repeat("x", 2000))
	r.Header.Set("X-Forwarded-For", "10.1.2.3")
	rec.Annotate("early", "1") // before the policy was asked
	rec.AnnotateAt(RequestResponse, "detail", "x")
	rec.Decide(r, ann, create, false)
	rec.Annotate("early", "2") // the first stays
	rec.Impersonated(&request.User{Name: "bob", Groups: []string{"h"}}, "impersonate:user-info")
	obj := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "u", ResourceVersion: "7"}}
	rec.Sent(obj, func() ([]byte, error) { return []byte(`{"kind":"Secret"}`), nil })
	rec.Answered(func(to io.Writer) error { _, err := io.WriteString(to, `{"kind":"Status"}`); return err })
	rec.Status(&metav1.Status{Status: "Failure", Message: "no", Reason: "Forbidden", Code: 403, ListMeta: metav1.ListMeta{Continue: "x"}})
	rec.Header(403)
	rec.End()
	if len(got.all) != 2 {
		t.Fatal(got.stages())
	}
	first, last := got.all[0], got.all[1]
	if first.ObjectRef.Name != "" || len(first.Annotations) != 2 || first.ResponseStatus != nil || first.StageTimestamp != first.RequestReceivedTimestamp {
		t.Errorf("an event has changed after it was passed on: %+v", first)
	}
	text, err := json.Marshal(last)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"level":"RequestResponse","auditID":"` + rec.ID() + `","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/ns/secrets?dryRun=All","verb":"create"`,
		`"user":{"username":"ann","uid":"1","groups":["g"],"extra":{"k":["v"]}}`,
		`"impersonatedUser":{"username":"bob","groups":["h"]},"authenticationMetadata":{"impersonationConstraint":"impersonate:user-info"}`,
		`"sourceIPs":["10.1.2.3","192.0.2.1"]`, `x...TRUNCATED"`,
		`"objectRef":{"resource":"secrets","namespace":"ns","name":"n","uid":"u","apiVersion":"v1","resourceVersion":"7"}`,
		`"responseStatus":{"metadata":{},"status":"Failure","message":"no","reason":"Forbidden","code":403}`,
		`"requestObject":{"kind":"Secret"},"responseObject":{"kind":"Status"}`,
		`"annotations":{"detail":"x","early":"1"}`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if r.Header.Get("Audit-ID") != rec.ID() || rec.ID() == "" {
		t.Error("who the request is passed on to does not learn the record's name")
	}
	r.Header.Set("Audit-ID", "mine")
	if again := rec.log.Begin(r); again.ID() != "mine" {
		t.Errorf("the client has chosen another name: %s", again.ID())
	}
}

func TestLevels(t *testing.T) {
	for level, want := range map[string]string{"Metadata": "", "Request": "sent", "RequestResponse": "sent answered"} {
		rec, got, r := record(t, "rules: [{level: "+level+"}]")
		rec.Decide(r, ann, create, false)
		var rendered []string
		rec.Sent(nil, func() ([]byte, error) { rendered = append(rendered, "sent"); return []byte("{}"), nil })
		rec.Answered(func(to io.Writer) error {
			rendered = append(rendered, "answered")
			_, err := to.Write([]byte("{}"))
			return err
		})
		rec.End()
		last := got.all[len(got.all)-1]
		if strings.Join(rendered, " ") != want || (last.RequestObject != nil) != strings.Contains(want, "sent") || (last.ResponseObject != nil) != strings.Contains(want, "answered") {
			t.Errorf("%s: %v", level, rendered)
		}
	}
}

func TestPatchesAreJSON(t *testing.T) {
	for patch, want := range map[string]string{`[{"op":"remove","path":"/a"}]`: `[{"op":"remove","path":"/a"}]`, "a: {b: 1}\n": `{"a":{"b":1}}`, "\t{": `"\t{"`} {
		rec, got, r := record(t, "rules: [{level: Request}]")
		rec.Decide(r, ann, create, false)
		rec.SentPatch([]byte(patch))
		rec.End()
		if raw := string(got.all[1].RequestObject.Raw); raw != want {
			t.Errorf("%q: %s", patch, raw)
		}
	}
}

func TestManagedFieldsAreLeftOut(t *testing.T) {
	const managed = `"managedFields":[{"manager":"m"}]`
	for text, want := range map[string]string{
		`{"metadata":{"name":"a",` + managed + `},"n":12345678901234567890}`:  `{"metadata":{"name":"a"},"n":12345678901234567890}`,
		`{"kind":"List","items":[{"metadata":{` + managed + `}},{"x":1}]}`:    `{"items":[{"metadata":{}},{"x":1}],"kind":"List"}`,
		`{"kind":"Table","rows":[{"object":{"metadata":{` + managed + `}}}]}`: `{"kind":"Table","rows":[{"object":{"metadata":{}}}]}`,
		`{"metadata": {"name":"a"}}`:                                          `{"metadata": {"name":"a"}}`,
	} {
		rec, _, r := record(t, "omitManagedFields: true\nrules: [{level: Request}]")
		rec.Decide(r, ann, create, false)
		if got := string(rec.pruned([]byte(text))); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	rec, _, r := record(t, "rules: [{level: Request}]")
	rec.Decide(r, ann, create, false)
	if text := `{"metadata":{` + managed + `}}`; string(rec.pruned([]byte(text))) != text {
		t.Error("left out though nobody said so")
	}
}

func TestNilRecord(t *testing.T) {
	var l *Log
	rec := l.Begin(httptest.NewRequest("GET", "/", nil))
	if n := testing.AllocsPerRun(100, func() {
		rec.Annotate("a", "b")
		rec.Header(200)
		rec.Status(&metav1.Status{})
		rec.SentPatch(nil)
		rec.Impersonated(ann, "")
		rec.End()
		Annotate(context.Background(), "a", "b")
	}); n != 0 || rec.Wants(Metadata) || rec.ID() != "" || rec.Decide(nil, nil, nil, false) != nil {
		t.Errorf("without a policy: %v allocations", n)
	}
}

// options that write to a file, with a policy.
func options(t *testing.T, change func(*Options)) (Options, string) {
	t.Helper()
	dir := t.TempDir()
	o := Defaults()
	o.PolicyFile, o.Log.Path = filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "logs", "audit.log")
	if err := os.WriteFile(o.PolicyFile, []byte(head+"rules: [{level: RequestResponse}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&o)
	}
	return o, o.Log.Path
}

func opened(t *testing.T, o Options) *Log {
	t.Helper()
	l, err := o.Open(discard)
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	return l
}

// request is recorded from its beginning to its end.
func one(l *Log, size int) {
	r := httptest.NewRequest("GET", "/api/v1/namespaces/ns/secrets", nil)
	rec := l.Begin(r)
	if rec.Decide(r, ann, create, false) != nil {
		return
	}
	if size > 0 {
		rec.SentPatch([]byte(`"` + strings.Repeat("x", size) + `"`))
	}
	rec.Header(200)
	rec.End()
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	s := bufio.NewScanner(bytes.NewReader(data))
	s.Buffer(nil, 1<<24)
	for s.Scan() {
		all = append(all, s.Text())
	}
	return all
}

func TestLogFile(t *testing.T) {
	o, path := options(t, nil)
	l := opened(t, o)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { one(l, 10) })
	}
	wg.Wait()
	all := lines(t, path)
	if len(all) != 40 {
		t.Fatalf("%d lines", len(all))
	}
	for _, line := range all {
		var e auditv1.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.APIVersion != "audit.k8s.io/v1" || e.Kind != "Event" || !strings.HasPrefix(line, `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":`) {
			t.Fatalf("%v: %s", err, line)
		}
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("others may read it: %v", info.Mode())
	}
	o, path = options(t, func(o *Options) { o.Log.Format = "legacy" })
	one(opened(t, o), 0)
	if all := lines(t, path); len(all) != 2 || !strings.Contains(all[1], `AUDIT: id=`) || !strings.Contains(all[1], `user="ann" groups="\"g\""`) || !strings.HasSuffix(all[1], `response="200"`) {
		t.Errorf("in words: %v", all)
	}
}

func TestLogFileRotates(t *testing.T) {
	o, path := options(t, func(o *Options) { o.Log.MaxSize, o.Log.MaxBackups = 1, 0 })
	l := opened(t, o)
	for range 5 {
		one(l, 400<<10)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "audit*.log"))
	if err != nil || len(files) < 2 {
		t.Errorf("2 MB in files of 1 MB: %v, %v", files, err)
	}
	o, path = options(t, func(o *Options) { o.Log.MaxSize = 0 })
	l = opened(t, o)
	for range 5 {
		one(l, 400<<10)
	}
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "audit*")); len(files) != 1 {
		t.Errorf("without a size: %v", files)
	}
}

func TestModesOfFailure(t *testing.T) {
	broken := func(context.Context, []entry) error { return errors.New("no room") }
	for mode, refused := range map[string]bool{ModeBlocking: false, ModeStrict: true} {
		l := newLog(policy(t, "rules: [{level: Metadata}]"), discard)
		d := Defaults().Log.Delivery
		d.Mode = mode
		l.sinks = []sink{d.deliver(l, pluginLog, broken)}
		r := httptest.NewRequest("GET", "/", nil)
		if err := l.Begin(r).Decide(r, ann, create, false); (err != nil) != refused || l.Lost() == 0 {
			t.Errorf("%s: %v, %d lost", mode, err, l.Lost())
		}
		rejected := "apiserver_audit_requests_rejected_total 0"
		if refused {
			rejected = "apiserver_audit_requests_rejected_total 1"
		}
		metricstest.Expect(t, l.Metrics(), rejected, `apiserver_audit_error_total{plugin="log"} 1`, "apiserver_audit_event_total 1",
			`apiserver_audit_level_total{level="Metadata"} 1`, `apiserver_audit_level_total{level="None"} 0`)
	}
}

func TestTruncate(t *testing.T) {
	o, path := options(t, func(o *Options) { o.Log.Truncate, o.Log.TruncateEvent, o.Log.TruncateMaxBatch = true, 2000, 4000 })
	l := opened(t, o)
	one(l, 10000)
	all := lines(t, path)
	if len(all) != 2 || strings.Contains(all[1], "xxxx") || !strings.Contains(all[1], `"audit.k8s.io/truncated":"true"`) || strings.Contains(all[0], "truncated") {
		t.Errorf("%v", all)
	}
	o, path = options(t, func(o *Options) { o.Log.Truncate, o.Log.TruncateEvent, o.Log.TruncateMaxBatch = true, 100, 100 })
	l = opened(t, o)
	if one(l, 0); len(lines(t, path)) != 0 || l.Lost() == 0 {
		t.Error("an event of more than 100 bytes is written")
	}
	metricstest.Expect(t, l.Metrics(), `apiserver_audit_error_total{plugin="truncate"} 2`, `!apiserver_audit_error_total{plugin="log"}`)
}

// webhook in the background, and what is done to it.
func withWebhook(t *testing.T, change func(*Options)) (*webhooktest.Webhook, *Log, func()) {
	t.Helper()
	w := webhooktest.New(t)
	o, _ := options(t, func(o *Options) {
		o.Log.Path, o.Webhook.ConfigFile, o.Webhook.InitialBackoff = "", w.Kubeconfig("/events"), time.Millisecond
		o.Webhook.MaxWait = 10 * time.Millisecond
		change(o)
	})
	l := opened(t, o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return w, l, stop
}

func events(w *webhooktest.Webhook) (n int) {
	for _, b := range w.Bodies() {
		items, _ := b["items"].([]any)
		n += len(items)
	}
	return n
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatal("never: " + what)
		}
	}
}

func TestWebhook(t *testing.T) {
	w, l, stop := withWebhook(t, func(o *Options) { o.Webhook.MaxWait = time.Hour; o.Webhook.MaxSize = 6 })
	for range 5 { // ten events: one batch is full, the others wait until the end
		one(l, 10)
	}
	until(t, "a full batch goes", func() bool { return events(w) == 6 })
	stop()
	if n := events(w); n != 10 || l.Lost() != 0 {
		t.Errorf("%d events, %d lost", n, l.Lost())
	}
	b := w.Bodies()[0]
	item, _ := b["items"].([]any)[0].(map[string]any)
	if b["kind"] != "EventList" || b["apiVersion"] != "audit.k8s.io/v1" || item["stage"] != "RequestReceived" || item["kind"] != nil {
		t.Errorf("sent %v", b)
	}
}

func TestWebhookFails(t *testing.T) {
	w, l, _ := withWebhook(t, func(*Options) {})
	var mu sync.Mutex
	failures := 3
	w.Answer(func(rw http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if failures--; failures >= 0 {
			rw.WriteHeader(404) // whatever it says, it is tried again
		}
	})
	one(l, 0)
	until(t, "it is tried four times", func() bool { return w.Calls() >= 4 })
	w.Say(500, "")
	one(l, 0)
	until(t, "what cannot be sent is lost", func() bool { return l.Lost() == 2 })
	metricstest.Expect(t, l.Metrics(), `apiserver_audit_error_total{plugin="webhook"} 2`, "apiserver_audit_event_total 4")
}

func TestWebhookHangs(t *testing.T) {
	w, l, stop := withWebhook(t, func(o *Options) {
		o.Webhook.Buffer, o.Webhook.MaxSize, o.Webhook.MaxWait = 10, 1, 0
		o.Webhook.Throttle = false
	})
	release := w.Hang()
	defer release()
	start := time.Now()
	for range 100 {
		one(l, 0)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("requests wait for a webhook that hangs: %s", took)
	}
	until(t, "events are lost", func() bool { return l.Lost() > 0 })
	if text := metricstest.Text(t, l.Metrics()); !strings.Contains(text, `apiserver_audit_error_total{plugin="buffered"}`) {
		t.Error(text)
	}
	release()
	stop()
}

func TestOptions(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"mode":    {func(o *Options) { o.Log.Mode = "later" }, "--audit-log-mode later: write batch, blocking, blocking-strict"},
		"format":  {func(o *Options) { o.Log.Format = "xml" }, `--audit-log-format "xml": write json or legacy`},
		"version": {func(o *Options) { o.Log.Version = "audit.k8s.io/v1beta1" }, "--audit-log-version audit.k8s.io/v1beta1: write audit.k8s.io/v1"},
		"age":     {func(o *Options) { o.Log.MaxAge = -1 }, "--audit-log-maxage -1: write 0"},
		"buffer":  {func(o *Options) { o.Log.Mode, o.Log.Buffer = ModeBatch, 0 }, "--audit-log-batch-buffer-size 0: write a number above 0"},
		"sizes":   {func(o *Options) { o.Log.TruncateMaxBatch = 1 }, "--audit-log-truncate-max-batch-size 1: write as much as an event may have"},
		"policy":  {func(o *Options) { o.PolicyFile = "/none" }, "--audit-policy-file: open /none"},
		"rule":    {func(o *Options) { os.WriteFile(o.PolicyFile, []byte(head+"rules: [{}]"), 0o600) }, "policy.yaml: rules[0].level: Required value: write None"},
		"place":   {func(o *Options) { o.Log.Path = "/proc/none/audit.log" }, "--audit-log-path: "},
		"webhook": {func(o *Options) { o.Webhook.ConfigFile = "/none" }, "--audit-webhook-config-file: kubeconfig /none"},
	} {
		o, _ := options(t, c.change)
		if _, err := o.Open(discard); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	for name, change := range map[string]func(*Options){
		"no policy": func(o *Options) { o.PolicyFile = "" }, "nowhere": func(o *Options) { o.Log.Path = "" },
	} {
		o, _ := options(t, change)
		if l, err := o.Open(discard); l != nil || err != nil {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
}
