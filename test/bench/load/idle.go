package load

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Idle is a cluster that has everything it needs and nothing to do: Deployments of
// one pod each, that run on nodes that do not exist.
type Idle struct {
	Nodes       int
	Deployments int
}

// MakeNodes that are Ready, renew their leases until stop is called.
func (l *Idle) MakeNodes(ctx context.Context, t *Target) (stop func(), err error) {
	nodes := &Sched{Nodes: l.Nodes}
	if err := t.namespace(ctx, schedNamespace); err != nil {
		return nil, err
	}
	if err := nodes.makeNodes(ctx, t); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var beats sync.WaitGroup
	beats.Go(func() { nodes.renew(ctx, t) })
	return func() { cancel(); beats.Wait() }, nodes.settle(ctx, t)
}

// Fill the cluster with the Deployments, play the kubelets of their pods, and wait
// until all are available.
func (l *Idle) Fill(ctx context.Context, t *Target) error {
	_, err := t.each(ctx, "make a Deployment", l.Deployments, workers, func(i int) error {
		object := fmt.Appendf(nil, `{"metadata":{"name":"d-%05d"},"spec":{"selector":{"matchLabels":{"d":"%d"}},"template":{"metadata":{"labels":{"d":"%d"}},`+
			`"spec":{"containers":[{"name":"c","image":"x","resources":{"requests":{"cpu":"10m","memory":"10Mi"}}}]}}}}`, i, i, i)
		_, err := t.do(ctx, request{"POST", "/apis/apps/v1/namespaces/" + schedNamespace + "/deployments", jsonType, "", object}, 201)
		return err
	})
	if err != nil {
		return err
	}
	run := map[string]bool{}
	return until(ctx, patience, "all Deployments are available", func() (bool, error) {
		if err := l.run(ctx, t, run); err != nil {
			return false, err
		}
		var list struct {
			Items []struct {
				Status struct{ AvailableReplicas int }
			}
		}
		if err := t.read(ctx, "/apis/apps/v1/namespaces/"+schedNamespace+"/deployments?resourceVersion=0", &list); err != nil {
			return false, err
		}
		n := 0
		for _, d := range list.Items {
			n += d.Status.AvailableReplicas
		}
		return n >= l.Deployments, nil
	})
}

// run the pods that were bound and do not run yet, as their kubelets would say.
func (l *Idle) run(ctx context.Context, t *Target, done map[string]bool) error {
	var list struct{ Items []podState }
	if err := t.read(ctx, "/api/v1/namespaces/"+schedNamespace+"/pods", &list); err != nil {
		return err
	}
	for _, p := range list.Items {
		name := p.Metadata.Name
		if p.Spec.NodeName == "" || done[name] {
			continue
		}
		n := len(done)
		now := time.Now().UTC().Format(time.RFC3339)
		status := fmt.Appendf(nil, `{"status":{"phase":"Running","podIP":"10.9.%d.%d","podIPs":[{"ip":"10.9.%d.%d"}],"startTime":%q,"conditions":[{"type":"Ready","status":"True","lastTransitionTime":%q}]}}`,
			n>>8, n&255, n>>8, n&255, now, now)
		if _, err := t.do(ctx, request{"PATCH", "/api/v1/namespaces/" + schedNamespace + "/pods/" + name + "/status", mergeType, "", status}, 200); err != nil {
			return err
		}
		done[name] = true
	}
	return nil
}
