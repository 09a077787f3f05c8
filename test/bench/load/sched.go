package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/proa-dev/proa/test/bench/figure"
)

// Sched is the load of pods that have to be bound to nodes that do not exist:
// the nodes are Ready and renew their leases, and nothing runs on them.
type Sched struct {
	Nodes int
	Pods  int
	Shape Shape
}

// Shape of the pods.
type Shape string

// The shapes.
const (
	Bare       Shape = "bare pods"
	Deployment Shape = "a Deployment"
	Spread     Shape = "pods spread over zones"
	Affinity   Shape = "pods with a preferred affinity"
)

// Shapes in the order in which they are measured.
func Shapes() []Shape { return []Shape{Bare, Deployment, Spread, Affinity} }

const (
	schedNamespace = "sched"
	nodesPath      = "/api/v1/nodes"
	leasesPath     = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
	workers        = 32
	patience       = 10 * time.Minute
)

// Run makes the nodes, then the pods, and measures how many are bound a second,
// from the first request to the last binding that a watch has shown. The nodes
// stay: start another server for another run.
func (l *Sched) Run(ctx context.Context, t *Target, add Add) error {
	ctx, cancel := context.WithCancel(ctx)
	var beats sync.WaitGroup
	defer beats.Wait()
	defer cancel()
	if err := t.namespace(ctx, schedNamespace); err != nil {
		return err
	}
	if err := l.makeNodes(ctx, t); err != nil {
		return err
	}
	beats.Go(func() { l.renew(ctx, t) })
	if err := l.settle(ctx, t); err != nil {
		return err
	}
	opened, bound := make(chan struct{}), make(chan error, 1)
	go func() { bound <- l.await(ctx, t, "app=b", l.Pods, sync.OnceFunc(func() { close(opened) })) }()
	<-opened
	began := time.Now()
	if err := l.makePods(ctx, t); err != nil {
		return err
	}
	select {
	case err := <-bound:
		if err != nil {
			return err
		}
	case <-time.After(patience):
		return fmt.Errorf("%s: the pods were not bound after %s", l.Shape, patience)
	}
	rate := float64(l.Pods) / time.Since(began).Seconds()
	t.Log("%-28s %8.0f /s", l.Shape, rate)
	add(fmt.Sprintf("bind %s, %s on %s nodes", l.Shape, figure.Count(l.Pods), figure.Count(l.Nodes)), figure.PerSecond, rate)
	return nil
}

func nodeName(i int) string { return fmt.Sprintf("fake-%05d", i) }

// nodeStatus as a kubelet reports it.
func nodeStatus() string {
	now := time.Now().UTC().Format(time.RFC3339)
	return fmt.Sprintf(`"status":{"capacity":{"cpu":"32","memory":"256Gi","pods":"110"},"allocatable":{"cpu":"32","memory":"256Gi","pods":"110"},`+
		`"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":%q,"lastTransitionTime":%q,"reason":"KubeletReady","message":"ok"}]}`, now, now)
}

func (l *Sched) makeNodes(ctx context.Context, t *Target) error {
	if err := t.namespaceOnly(ctx, "kube-node-lease"); err != nil {
		return err
	}
	_, err := t.each(ctx, "make a node", l.Nodes, workers, func(i int) error {
		name := nodeName(i)
		object := fmt.Appendf(nil, `{"metadata":{"name":%q,"labels":{"kubernetes.io/hostname":%q,"topology.kubernetes.io/zone":"z%d"}},%s}`, name, name, i%3, nodeStatus())
		if _, err := t.do(ctx, request{"POST", nodesPath, jsonType, "", object}, 201, 409); err != nil {
			return err
		}
		if _, err := t.do(ctx, request{"POST", leasesPath, jsonType, "", lease(i)}, 201, 409); err != nil {
			return err
		}
		// A server that taints new nodes waits for this to lift the taint.
		_, err := t.do(ctx, request{"PATCH", nodesPath + "/" + name + "/status", mergeType, "", []byte("{" + nodeStatus() + "}")}, 200)
		return err
	})
	return err
}

func lease(i int) []byte {
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")
	return fmt.Appendf(nil, `{"metadata":{"name":%q},"spec":{"holderIdentity":%q,"leaseDurationSeconds":40,"renewTime":%q}}`, nodeName(i), nodeName(i), now)
}

// renew the leases as kubelets do, every ten seconds, so that no server takes
// the nodes for lost. One that fails is seen by what it brings about.
func (l *Sched) renew(ctx context.Context, t *Target) {
	tick := time.NewTicker(10 * time.Second / time.Duration(l.Nodes))
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % l.Nodes {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := t.do(ctx, request{"PATCH", leasesPath + "/" + nodeName(i), mergeType, "", lease(i)}, 200); err != nil && ctx.Err() == nil {
			t.Log("a lease: %v", err)
		}
	}
}

// settle waits until no node is tainted any more and the scheduler has bound a
// pod, so that its start is not measured.
func (l *Sched) settle(ctx context.Context, t *Target) error {
	err := until(ctx, time.Minute, "the nodes have no taints", func() (bool, error) {
		var list struct {
			Items []struct{ Spec struct{ Taints []any } }
		}
		if err := t.read(ctx, nodesPath+"?resourceVersion=0", &list); err != nil {
			return false, err
		}
		for _, n := range list.Items {
			if len(n.Spec.Taints) > 0 {
				return false, errors.New("a node has a taint")
			}
		}
		return len(list.Items) >= l.Nodes, nil
	})
	if err != nil {
		return err
	}
	first := []byte(`{"metadata":{"name":"first","labels":{"app":"first"}},"spec":{"containers":[{"name":"c","image":"x"}]}}`)
	if _, err := t.do(ctx, request{"POST", "/api/v1/namespaces/" + schedNamespace + "/pods", jsonType, "", first}, 201); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return l.await(ctx, t, "app=first", 1, nil)
}

// podState is what of a pod tells whether it is bound.
type podState struct {
	Metadata struct{ Name string }
	Spec     struct{ NodeName string }
}

// await that n pods of a label are bound. opened is called when it watches. A
// watch that the server ends is begun anew from a list, as informers do.
func (l *Sched) await(ctx context.Context, t *Target, label string, n int, opened func()) error {
	path := "/api/v1/namespaces/" + schedNamespace + "/pods?labelSelector=" + label
	for {
		var list struct {
			Metadata struct{ ResourceVersion string }
			Items    []podState
		}
		if err := t.read(ctx, path, &list); err != nil {
			return err
		}
		bound := map[string]bool{}
		for _, p := range list.Items {
			if p.Spec.NodeName != "" {
				bound[p.Metadata.Name] = true
			}
		}
		if len(bound) >= n {
			return nil
		}
		err := t.watch(ctx, path+"&watch=1&timeoutSeconds=1200&resourceVersion="+list.Metadata.ResourceVersion, opened, func(line []byte) bool {
			var e struct{ Object podState }
			if json.Unmarshal(line, &e) == nil && e.Object.Spec.NodeName != "" {
				bound[e.Object.Metadata.Name] = true
			}
			return len(bound) < n
		})
		if !errors.Is(err, errWatchEnded) {
			return err
		}
	}
}

func (l *Sched) makePods(ctx context.Context, t *Target) error {
	if l.Shape == Deployment {
		object := fmt.Appendf(nil, `{"metadata":{"name":"d"},"spec":{"replicas":%d,"selector":{"matchLabels":{"app":"b"}},"template":{"metadata":{"labels":{"app":"b"}},"spec":{%s}}}}`, l.Pods, l.podSpec())
		_, err := t.do(ctx, request{"POST", "/apis/apps/v1/namespaces/" + schedNamespace + "/deployments", jsonType, "", object}, 201)
		return err
	}
	_, err := t.each(ctx, "make a pod", l.Pods, workers, func(i int) error {
		object := fmt.Appendf(nil, `{"metadata":{"name":"s-%06d","labels":{"app":"b"}},"spec":{%s}}`, i, l.podSpec())
		_, err := t.do(ctx, request{"POST", "/api/v1/namespaces/" + schedNamespace + "/pods", jsonType, "", object}, 201)
		return err
	})
	return err
}

func (l *Sched) podSpec() string {
	const label = `"labelSelector":{"matchLabels":{"app":"b"}}`
	spec := `"containers":[{"name":"c","image":"x","resources":{"requests":{"cpu":"100m","memory":"500Mi"}}}]`
	switch l.Shape {
	case Spread:
		spec += `,"topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"topology.kubernetes.io/zone","whenUnsatisfiable":"DoNotSchedule",` + label + `}]`
	case Affinity:
		spec += `,"affinity":{"podAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":1,"podAffinityTerm":{"topologyKey":"topology.kubernetes.io/zone",` + label + `}}]}}`
	}
	return spec
}
