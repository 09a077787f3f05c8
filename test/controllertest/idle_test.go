package controllertest_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/controller/aggregation"
	"github.com/proa-dev/proa/internal/controller/attach"
	"github.com/proa-dev/proa/internal/controller/cronjob"
	"github.com/proa-dev/proa/internal/controller/daemonset"
	"github.com/proa-dev/proa/internal/controller/deployment"
	"github.com/proa-dev/proa/internal/controller/devicetaint"
	"github.com/proa-dev/proa/internal/controller/disruption"
	"github.com/proa-dev/proa/internal/controller/endpoints"
	"github.com/proa-dev/proa/internal/controller/expand"
	"github.com/proa-dev/proa/internal/controller/flowcontrol"
	"github.com/proa-dev/proa/internal/controller/gc"
	"github.com/proa-dev/proa/internal/controller/job"
	"github.com/proa-dev/proa/internal/controller/mirror"
	"github.com/proa-dev/proa/internal/controller/namespace"
	"github.com/proa-dev/proa/internal/controller/nodelifecycle"
	"github.com/proa-dev/proa/internal/controller/podgc"
	"github.com/proa-dev/proa/internal/controller/replicaset"
	"github.com/proa-dev/proa/internal/controller/resourcequota"
	"github.com/proa-dev/proa/internal/controller/serviceaccount"
	"github.com/proa-dev/proa/internal/controller/statefulset"
	"github.com/proa-dev/proa/internal/controller/storagemigration"
	"github.com/proa-dev/proa/internal/controller/ttl"
	"github.com/proa-dev/proa/internal/controller/volume"
	"github.com/proa-dev/proa/test/controllertest"
)

// looks collects what controllers say about their looks: loop.Queue logs them.
type looks struct {
	*ledger
	controller string
}

type ledger struct {
	mu    sync.Mutex
	n     int
	again map[string]time.Duration // by controller and key: when it wants to look again, 0 = not
}

func (l looks) Enabled(context.Context, slog.Level) bool { return true }
func (l looks) WithGroup(string) slog.Handler            { return l }

func (l looks) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "controller" {
			l.controller = a.Value.String()
		}
	}
	return l
}

func (l looks) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "looked" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	key := ""
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "key":
			key = l.controller + " " + a.Value.String()
		case "again":
			l.again[key] = a.Value.Duration()
		}
		return true
	})
	return nil
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// TestIdle: once everything is as it should be nobody looks at anything, and nobody
// means to before it could have become different by time alone.
func TestIdle(t *testing.T) {
	c := controllertest.New(t, 0)
	book := &ledger{again: map[string]time.Duration{}}
	log, in := slog.New(looks{ledger: book}), c.Informers
	c.Kubelet(func(p *corev1.Pod) corev1.PodPhase {
		if p.Labels["job-name"] != "" {
			return corev1.PodSucceeded
		}
		return ""
	})
	c.Run(
		aggregation.New(in, c.Shaky, log), attach.New(in, log), cronjob.New(in, log), daemonset.New(in, log), deployment.New(in, log), devicetaint.New(in, c.Shaky, log), disruption.New(in, log), endpoints.New(in, log), expand.New(in, volume.Provisioner, log),
		flowcontrol.New(in, log), gc.New(c.Shaky, log), job.New(in, log), mirror.New(in, log), namespace.New(in, log), nodelifecycle.New(in, log), podgc.New(in, log),
		replicaset.New(in, log), replicaset.NewReplication(in, log), resourcequota.New(in, nil, log), serviceaccount.New(in, func() []byte { return []byte("CA") }, log),
		statefulset.New(in, log), storagemigration.New(in, log), ttl.New(in, log), volume.New(in, volume.Config{}, log),
	)
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: "default"} }
	template := func(app string) (*metav1.LabelSelector, corev1.PodTemplateSpec) {
		labels := map[string]string{"app": app}
		return &metav1.LabelSelector{MatchLabels: labels}, corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	}
	now := metav1.Now()
	node := controllertest.Create(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	controllertest.Change(c, "", node.Name, "status", func(n *corev1.Node) {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: now, LastTransitionTime: now}}
	})
	const n = 20
	for i := range n {
		name := fmt.Sprint("d", i)
		sel, pods := template(name)
		controllertest.Create(c, &appsv1.Deployment{ObjectMeta: meta(name), Spec: appsv1.DeploymentSpec{Selector: sel, Template: pods}})
		controllertest.Create(c, &corev1.Service{ObjectMeta: meta(name), Spec: corev1.ServiceSpec{Selector: sel.MatchLabels, ClusterIP: "None", Ports: []corev1.ServicePort{{Port: 80}}}})
		most := intstr.FromInt32(1)
		controllertest.Create(c, &policyv1.PodDisruptionBudget{ObjectMeta: meta(name), Spec: policyv1.PodDisruptionBudgetSpec{Selector: sel, MaxUnavailable: &most}})
	}
	sel, pods := template("s")
	controllertest.Create(c, &appsv1.StatefulSet{ObjectMeta: meta("s"), Spec: appsv1.StatefulSetSpec{Replicas: ptr.To[int32](2), Selector: sel, Template: pods, ServiceName: "s"}})
	sel, pods = template("a")
	controllertest.Create(c, &appsv1.DaemonSet{ObjectMeta: meta("a"), Spec: appsv1.DaemonSetSpec{Selector: sel, Template: pods}})
	_, pods = template("j")
	pods.Spec.RestartPolicy = corev1.RestartPolicyNever
	controllertest.Create(c, &batchv1.Job{ObjectMeta: meta("j"), Spec: batchv1.JobSpec{Template: pods}})
	controllertest.Create(c, &batchv1.CronJob{ObjectMeta: meta("c"), Spec: batchv1.CronJobSpec{Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: pods}}}})
	controllertest.Create(c, &corev1.ResourceQuota{ObjectMeta: meta("q"), Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"pods": resource.MustParse("100")}}})
	c.Settles("all is as it should be", func() bool {
		for _, d := range controllertest.List[*appsv1.Deployment](c) {
			if d.Status.AvailableReplicas != 1 {
				return false
			}
		}
		for _, b := range controllertest.List[*policyv1.PodDisruptionBudget](c) {
			if b.Status.CurrentHealthy != 1 {
				return false
			}
		}
		return len(controllertest.List[*corev1.Pod](c)) == n+2+1+1 && controllertest.Get[*appsv1.StatefulSet](c, "default", "s").Status.AvailableReplicas == 2 &&
			controllertest.Get[*batchv1.Job](c, "default", "j").Status.CompletionTime != nil
	})
	last, calm := book.count(), 0
	c.Until("nobody looks at anything", func() bool {
		if now := book.count(); now != last {
			last, calm = now, 0
		} else {
			calm++
		}
		return calm > 200 // looks of ours, 5 ms apart
	})
	book.mu.Lock()
	defer book.mu.Unlock()
	for key, again := range book.again {
		if again > 0 && again < 30*time.Second {
			t.Errorf("%s is looked at again after %v", key, again)
		}
	}
	t.Logf("%d looks at %d things until then", book.n, len(book.again))
}
