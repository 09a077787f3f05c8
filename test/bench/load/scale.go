package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// Scale is a cluster with many objects, of which it is asked whether requests cost
// more for that.
type Scale struct {
	Maps, Pods int
	CPU        func() time.Duration // that the server's processes have used
	made       atomic.Int64         // names that were used for what is created and deleted again
}

const (
	scaleNamespace = "scale"
	elsewhere      = "elsewhere"
	scaleMaps      = "/api/v1/namespaces/" + scaleNamespace + "/configmaps"
	scalePods      = "/api/v1/namespaces/" + scaleNamespace + "/pods"
	// Pods are on no node: the garbage collection of pods clears away those on nodes that are not there.
	scaleMap  = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"%s","labels":{"app":"a%d"}},"data":{"a":"one line of text","b":"%0512d"}}`
	scalePod  = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p-%06d","labels":{"app":"a%d","tier":"t%d"}},"spec":{"schedulerName":"none","containers":[{"name":"c","image":"x"}]}}`
	scaleApps = 1000 // values of the label app
	fillers   = 32
)

// Fill the cluster.
func (l *Scale) Fill(ctx context.Context, t *Target) error {
	for _, name := range []string{scaleNamespace, elsewhere} {
		if err := t.namespace(ctx, name); err != nil {
			return err
		}
	}
	if _, err := t.each(ctx, "make ConfigMaps", l.Maps, fillers, func(i int) error {
		return l.makeMap(ctx, t, fmt.Sprintf("m-%06d", i), i)
	}); err != nil || l.Pods == 0 {
		return err
	}
	_, err := t.each(ctx, "make pods", l.Pods, fillers, func(i int) error {
		object := fmt.Appendf(nil, scalePod, i, i%scaleApps, i%10)
		_, err := t.do(ctx, request{"POST", scalePods, jsonType, "", object}, 201)
		return err
	})
	return err
}

func (l *Scale) makeMap(ctx context.Context, t *Target, name string, i int) error {
	_, err := t.do(ctx, request{"POST", scaleMaps, jsonType, "", fmt.Appendf(nil, scaleMap, name, i%scaleApps, i)}, 201)
	return err
}

// Cost of requests: each's median latency, and the processor time of the server.
type Cost struct {
	Median, CPU time.Duration
}

// pairs of clients ask at a time: the latency is that of a server with room.
const pair = 2

// Block of requests: so many objects are created, then four times as many are read,
// then what was created is deleted. The names are spread among those that are there.
func (l *Scale) Block(ctx context.Context, t *Target, n int) (create, get, remove Cost, err error) {
	first := int(l.made.Add(int64(n))) - n
	name := func(i int) string { return fmt.Sprintf("m-%06d-%d", (first+i)*7919%l.Maps, first+i) }
	if create, err = l.cost(ctx, t, "create a ConfigMap", n, func(i int) error { return l.makeMap(ctx, t, name(i), i) }); err != nil {
		return
	}
	if get, err = l.cost(ctx, t, "get a ConfigMap", 4*n, func(int) error {
		_, err := t.do(ctx, request{method: "GET", path: fmt.Sprintf("%s/m-%06d", scaleMaps, rand.IntN(l.Maps))}, 200)
		return err
	}); err != nil {
		return
	}
	remove, err = l.cost(ctx, t, "delete a ConfigMap", n, func(i int) error {
		_, err := t.do(ctx, request{method: "DELETE", path: scaleMaps + "/" + name(i)}, 200)
		return err
	})
	return
}

func (l *Scale) cost(ctx context.Context, t *Target, name string, n int, f func(i int) error) (Cost, error) {
	before := l.CPU()
	s, err := t.each(ctx, name, n, pair, f)
	return Cost{s.P50, (l.CPU() - before) / time.Duration(max(n, 1))}, err
}

// Selected objects of a list by label: a thousandth of the pods.
func (l *Scale) Selected(ctx context.Context, t *Target, n int) (Cost, error) {
	return l.cost(ctx, t, "list a thousandth by a label", n, func(i int) error {
		_, err := t.do(ctx, request{method: "GET", path: fmt.Sprintf("%s?labelSelector=app%%3Da%d", scalePods, i%scaleApps)}, 200)
		return err
	})
}

// Changes of pods or of ConfigMaps, by patches.
func (l *Scale) Changes(ctx context.Context, t *Target, pods bool, n int) (Cost, error) {
	stamp := time.Now().UnixNano()
	return l.cost(ctx, t, "change an object", n, func(i int) error {
		path := fmt.Sprintf("%s/m-%06d", scaleMaps, i%l.Maps)
		if pods {
			path = fmt.Sprintf("%s/p-%06d", scalePods, i%l.Pods)
		}
		_, err := t.do(ctx, request{"PATCH", path, mergeType, "", fmt.Appendf(nil, `{"metadata":{"annotations":{"x":"%d-%d"}}}`, stamp, i)}, 200)
		return err
	})
}

// Mean of what several blocks cost: the median of their medians, and all their
// processor time.
func Mean(all []Cost) (c Cost) {
	medians := make([]time.Duration, len(all))
	for i, one := range all {
		medians[i] = one.Median
		c.CPU += one.CPU / time.Duration(len(all))
	}
	slices.Sort(medians)
	c.Median = medians[len(medians)/2]
	return c
}
