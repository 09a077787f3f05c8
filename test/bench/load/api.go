package load

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/proa-dev/proa/test/bench/figure"
)

// Add takes a figure that a load has measured.
type Add func(name string, unit figure.Unit, value float64)

// API is the load of requests for pods that nobody runs: their scheduler does
// not exist.
type API struct {
	Pods     int
	Writers  int // requests at a time
	Watchers int
	Memory   func() float64 // of all the server's processes, in MB; nil = not known
}

const benchNamespace = "bench"

const podsPath = "/api/v1/namespaces/" + benchNamespace + "/pods"

func podPath(i int) string { return fmt.Sprintf("%s/p-%06d", podsPath, i) }

// benchPod is a pod of ordinary size: 3.6 kB once the server has filled it in.
const benchPod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p-%06d","labels":{"app":"plumber","tier":"t%d","pod-template-hash":"5d8b7c9f"},"annotations":{"note":"a bench pod of ordinary size"}},` +
	`"spec":{"schedulerName":"none","containers":[{"name":"plumber","image":"mdneuzerling/plumber-on-k8s","ports":[{"containerPort":8000}],` +
	`"env":[{"name":"A","value":"1"},{"name":"B","value":"2"},{"name":"POD","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}],` +
	`"resources":{"requests":{"cpu":"100m","memory":"64Mi"},"limits":{"memory":"256Mi"}},` +
	`"livenessProbe":{"httpGet":{"path":"/health","port":8000},"periodSeconds":3},"readinessProbe":{"httpGet":{"path":"/health","port":8000},"periodSeconds":3}}],` +
	`"volumes":[{"name":"v","emptyDir":{}}]}}`

// write is a step of the load: requests of one kind, as many as n.
type write struct {
	name string
	n    int
	make func(i int) request
	want []int
}

// Run the load: create, get, list, watch, patch, apply, delete.
func (l *API) Run(ctx context.Context, t *Target, add Add) error {
	if err := t.namespace(ctx, benchNamespace); err != nil {
		return err
	}
	steps := l.writes()
	if err := l.write(ctx, t, add, steps[:1]); err != nil {
		return err
	}
	l.memory(add, "after creating them")
	if err := l.write(ctx, t, add, steps[1:2]); err != nil {
		return err
	}
	if err := l.lists(ctx, t, add); err != nil {
		return err
	}
	if err := l.watches(ctx, t, add); err != nil {
		return err
	}
	last := len(steps) - 1
	if err := l.write(ctx, t, add, steps[2:last]); err != nil {
		return err
	}
	l.memory(add, "after use")
	return l.write(ctx, t, add, steps[last:])
}

// writes are the steps in their order: the first makes the pods, the second
// reads them, the last deletes them.
func (l *API) writes() []write {
	return []write{
		{"create a pod", l.Pods, func(i int) request {
			return request{"POST", podsPath, jsonType, "", fmt.Appendf(nil, benchPod, i, i%10)}
		}, []int{201}},
		{"get a pod", l.Pods, func(int) request {
			return request{method: "GET", path: podPath(rand.IntN(l.Pods))}
		}, []int{200}},
		{"merge-patch a pod", l.Pods / 2, func(i int) request {
			return request{"PATCH", podPath(i), mergeType, "", fmt.Appendf(nil, `{"metadata":{"annotations":{"x":"%d"}}}`, i)}
		}, []int{200}},
		{"patch a pod's status", l.Pods / 2, func(i int) request {
			return request{"PATCH", podPath(i) + "/status", "application/strategic-merge-patch+json", "",
				[]byte(`{"status":{"conditions":[{"type":"Ready","status":"True"}],"podIP":"10.0.0.1"}}`)}
		}, []int{200}},
		{"apply a pod", l.Pods / 5, func(i int) request {
			return request{"PATCH", podPath(i) + "?fieldManager=bench&force=true", "application/apply-patch+yaml", "",
				fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p-%06d","labels":{"ssa":"y%d"}}}`, i, i)}
		}, []int{200}},
		{"delete a pod", l.Pods, func(i int) request {
			return request{method: "DELETE", path: podPath(i) + "?gracePeriodSeconds=0", content: jsonType}
		}, []int{200, 202}},
	}
}

func (l *API) write(ctx context.Context, t *Target, add Add, steps []write) error {
	for _, s := range steps {
		stats, err := t.each(ctx, s.name, s.n, l.Writers, func(i int) error {
			_, err := t.do(ctx, s.make(i), s.want...)
			return err
		})
		if err != nil {
			return err
		}
		add(s.name, figure.PerSecond, stats.Rate)
	}
	return nil
}

// lists are read by two clients at a time, eight times each kind.
func (l *API) lists(ctx context.Context, t *Target, add Add) error {
	const times, clients = 8, 2
	all := fmt.Sprintf("list %s pods", figure.Count(l.Pods))
	for _, k := range []struct{ name, query, accept string }{
		{all + " as JSON", "", jsonType},
		{all + " as JSON, resourceVersion=0", "?resourceVersion=0", jsonType},
		{all + " as protobuf", "", "application/vnd.kubernetes.protobuf"},
		{all + " as a table", "", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"},
		{"list a tenth of them by a label", "?labelSelector=tier%3Dt3", jsonType},
		{"list the first 500", "?limit=500", jsonType},
	} {
		var size int64
		stats, err := t.each(ctx, k.name, times, clients, func(i int) error {
			n, err := t.do(ctx, request{method: "GET", path: podsPath + k.query, accept: k.accept}, 200)
			if i == 0 {
				size = n
			}
			return err
		})
		if err != nil {
			return err
		}
		t.Log("%-28s %8.1f MB", "  its size", float64(size)/1e6)
		add(k.name, figure.Milliseconds, ms(stats.P50))
	}
	return nil
}

func (l *API) memory(add Add, when string) {
	if l.Memory != nil {
		add(fmt.Sprintf("memory with %s pods, %s", figure.Count(l.Pods), when), figure.Megabytes, l.Memory())
	}
}
