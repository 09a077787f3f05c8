package state

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

const (
	fewReads, fewWrites = 24, 12
	hookTimeout         = 3 * time.Second // as long as a write that hangs holds its seat
	crowdLeast          = 500             // clients of one account, more than its queues hold
	mouseWithin         = 2*hookTimeout + 2*time.Second
)

// TestOverloadIsRefused has a server with few seats asked for what holds them long:
// large lists that are read slowly, writes that wait for a webhook that does not
// answer. So the seats and the queues are full, and most are told to come back later
// (429 with Retry-After). An account that asks for little beside those that ask for
// much is served all the same; nodes are served within a second; and the server's
// metrics say what happened.
func TestOverloadIsRefused(t *testing.T) {
	clients, lasts := overload(t)
	clients = max(clients, crowdLeast)
	others := busy(t)
	dir := inMemory(t)
	many(t, filepath.Join(dir, "etcd"), loadObjects)
	s := newServer(t, dir, "--max-requests-inflight", fmt.Sprint(fewReads), "--max-mutating-requests-inflight", fmt.Sprint(fewWrites))
	s.up()
	tokens := accounts(t, s)
	hanging(t, s)
	nodes := newNodes(t, s)
	small := &mouse{api: s.as(t, tokens[1])}
	before := flowcontrol(t, s)
	load := plan{Server: s.conf.Host, CA: s.conf.CAFile, CAData: s.conf.CAData, Clients: clients, Lasts: lasts, Tokens: tokens[:1], Heavy: true}

	var seats, waiting float64
	got := load.beside(t, s, nodes, others, small.run, func() {
		now := flowcontrol(t, s)
		seats, waiting = max(seats, now.sum("current_executing_seats", limited)), max(waiting, now.sum("current_inqueue_requests", limited))
	})
	t.Logf("at most %v seats used and %v requests in queues", seats, waiting)
	if got["served"] == 0 || got["429"] == 0 {
		t.Errorf("%d were served, %d refused: some of both were to be expected", got["served"], got["429"])
	}
	if longest := slept(t, nodes); longest > systemWithin {
		t.Errorf("a node waited %s", longest)
	}
	small.check(t)
	checkFlowcontrol(t, s, before, got["429"], seats)
}

// slept is the longest that a node waited; on a machine that others keep busy, how
// long it would have been if the processors were the server's alone.
func slept(t *testing.T, nodes []*node) time.Duration {
	t.Helper()
	var took, work []time.Duration
	for _, n := range nodes {
		for _, err := range n.failed {
			t.Errorf("node %s: %v", n.name, err)
		}
		took, work = append(took, n.took...), append(work, n.work...)
	}
	if len(took) == 0 {
		t.Fatal("no node came through")
	}
	others := busy(t)
	longest := percentiles(t, "requests of nodes", took)
	if worked := percentiles(t, "on a quiet machine", work); others {
		longest = worked
	}
	return longest
}

// hanging makes a webhook that answers nobody, and has the server ask it about
// ConfigMaps with a label.
func hanging(t *testing.T, s *server) {
	t.Helper()
	hook := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then it is seen that who asked went away
		<-r.Context().Done()
	}))
	t.Cleanup(hook.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})
	_, err := s.api.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: hangs},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "hangs.example.com", AdmissionReviewVersions: []string{"v1"},
			SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone), TimeoutSeconds: ptr.To(int32(hookTimeout.Seconds())),
			FailurePolicy:  ptr.To(admissionregistrationv1.Ignore),
			ClientConfig:   admissionregistrationv1.WebhookClientConfig{URL: &hook.URL, CABundle: ca},
			ObjectSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: hangs, Operator: metav1.LabelSelectorOpExists}}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			}},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// as is a client that shows a token.
func (s *server) as(t *testing.T, token string) *kubernetes.Clientset {
	t.Helper()
	conf := rest.AnonymousClientConfig(s.conf)
	conf.BearerToken, conf.QPS = token, -1
	conf.Dial = (&net.Dialer{}).DialContext
	api, err := kubernetes.NewForConfig(conf)
	if err != nil {
		t.Fatal(err)
	}
	return api
}

// mouse asks for one small thing after the other.
type mouse struct {
	api     *kubernetes.Clientset
	took    []time.Duration
	refused int
	failed  []error
}

func (m *mouse) run(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		began := time.Now()
		// Straight, for client-go's own clients try again by themselves when they are refused.
		answer := m.api.CoreV1().RESTClient().Get().MaxRetries(0).AbsPath(fmt.Sprintf("/api/v1/namespaces/many/configmaps/o%06d", i%(loadObjects/2))).Do(ctx)
		switch err := answer.Error(); {
		case ctx.Err() != nil:
		case apierrors.IsTooManyRequests(err):
			m.refused++
		case err != nil:
			m.failed = append(m.failed, err)
		default:
			m.took = append(m.took, time.Since(began))
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond): // it asks for little
		}
	}
}

func (m *mouse) check(t *testing.T) {
	t.Helper()
	for _, err := range m.failed {
		t.Errorf("who asks for little: %v", err)
	}
	if m.refused > 0 && !busy(t) { // else those who read slowly may hold all seats for as long as a request waits
		t.Errorf("who asks for little was refused %d times", m.refused)
	}
	if len(m.took) == 0 {
		t.Fatal("who asks for little was never served")
	}
	if longest := percentiles(t, "requests of who asks for little", m.took); longest > mouseWithin && !busy(t) {
		t.Errorf("who asks for little waited %s", longest)
	}
}

// figures are the metrics of priority and fairness: by name and labels.
type figures map[string]float64

const metricsPrefix = "apiserver_flowcontrol_"

func flowcontrol(t *testing.T, s *server) figures {
	t.Helper()
	text, err := s.api.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := figures{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, metricsPrefix)), " ")
		if !ok || !strings.HasPrefix(line, metricsPrefix) {
			continue
		}
		if f[name], err = strconv.ParseFloat(value, 64); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// limited leaves out what is never refused.
func limited(labels string) bool { return !strings.Contains(labels, `priority_level="exempt"`) }

// sum of a metric over the labels that are wanted.
func (f figures) sum(name string, want func(labels string) bool) (sum float64) {
	for key, v := range f {
		if metric, labels, _ := strings.Cut(key, "{"); metric == name && want(labels) {
			sum += v
		}
	}
	return sum
}

// checkFlowcontrol compares the metrics with what the clients saw.
func checkFlowcontrol(t *testing.T, s *server, before figures, refused int, seats float64) {
	t.Helper()
	eventually(t, time.Minute, "the queues are empty", func() error {
		now := flowcontrol(t, s)
		if w, e := now.sum("current_inqueue_requests", limited), now.sum("current_executing_requests", limited); w+e > 0 {
			return fmt.Errorf("%v wait, %v run", w, e)
		}
		return nil
	})
	now := flowcontrol(t, s)
	grown := func(name string, want func(string) bool) float64 { return now.sum(name, want) - before.sum(name, want) }
	of := func(reason string) func(string) bool {
		return func(labels string) bool { return strings.Contains(labels, `reason="`+reason+`"`) }
	}
	told := grown("rejected_requests_total", limited) - grown("rejected_requests_total", of("cancelled"))
	t.Logf("refused, as the server counts: %v, for a full queue %v, for the time %v; client went: %v; clients counted %d", told,
		grown("rejected_requests_total", of("queue-full")), grown("rejected_requests_total", of("time-out")), grown("rejected_requests_total", of("cancelled")), refused)
	// Who was refused at the very end did not count it any more.
	if told < float64(refused) || told > float64(refused)+float64(refused)/10+2000 {
		t.Errorf("the server says that it refused %v, clients were refused %d times", told, refused)
	}
	if grown("dispatched_requests_total", limited) == 0 || now.sum("request_wait_duration_seconds_sum", limited) == 0 {
		t.Error("by the metrics nobody was let through after having waited")
	}
	nominal := now.sum("nominal_limit_seats", limited)
	if seats > nominal {
		t.Errorf("%v seats were used at a time, of %v", seats, nominal)
	}
	if seats < (fewReads+fewWrites)/2 {
		t.Errorf("no more than %v seats were ever used of %v: this was no overload", seats, nominal)
	}
}
