// Package simulate answers questions of capacity: what fits where on a cluster
// that does not exist. Nodes come from a file of shapes; what is to run on them
// from manifests, or a number of like pods.
//
// Run works in one of two ways. By default the nodes are objects of a real API
// server in this process, over a store in memory, with the real controllers and
// the real scheduler, and something that says of each bound pod that it runs.
// Direct leaves all that out and only decides, pod by pod: what the scheduler
// alone can do.
package simulate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/scheduler"
)

// Config of a simulation.
type Config struct {
	Shapes    []Shape
	Objects   []api.Object             // from manifests, in order; see Read
	Pods      int                      // pods besides those of Objects, …
	Pod       *corev1.Pod              // … like this one; nil = 100m CPU and 500 Mi of memory
	Direct    bool                     // decide alone; Objects may then only be Pods and Namespaces
	Seed      uint64                   // which of equal nodes are taken
	Settle    time.Duration            // how long nothing may happen before the answer is final; 0 = 1 s
	Scheduler *scheduler.Configuration // nil = upstream's defaults
	Logger    *slog.Logger
}

// Result of a simulation.
type Result struct {
	Nodes     int           `json:"nodes"`
	Pods      int           `json:"pods"`
	Placed    int           `json:"placed"`
	Pending   int           `json:"pending"`
	Seconds   float64       `json:"seconds"` // until the last pod was placed
	PerSecond float64       `json:"podsPerSecond"`
	Why       []Reason      `json:"why,omitempty"` // of pending pods, the most frequent first
	Shapes    []ShapeResult `json:"shapes"`
	Work      []WorkResult  `json:"work"`
	Spread    float64       `json:"cpuDeviation"` // standard deviation of the share of CPU that is requested, over nodes
}

// Reason that pods are pending for.
type Reason struct {
	Message string `json:"message"`
	Pods    int    `json:"pods"`
}

// ShapeResult is how full the nodes of a shape are, in hundredths.
type ShapeResult struct {
	Name   string  `json:"name"`
	Nodes  int     `json:"nodes"`
	Empty  int     `json:"empty"`
	Pods   int     `json:"pods"`
	CPU    float64 `json:"cpuPercent"`
	Memory float64 `json:"memoryPercent"`
}

// WorkResult is what became of the pods of one owner.
type WorkResult struct {
	Name   string `json:"name"` // namespace/name of the pods, without what is generated
	Pods   int    `json:"pods"`
	Placed int    `json:"placed"`
	Nodes  int    `json:"nodes"` // that have at least one
}

// Run a simulation to its end.
func Run(ctx context.Context, c Config) (*Result, error) {
	nodes, err := makeNodes(c.Shapes)
	if err != nil {
		return nil, err
	}
	if c.Settle == 0 {
		c.Settle = time.Second
	}
	if c.Pod == nil {
		c.Pod = usualPod()
	}
	if c.Pods == 0 && len(c.Objects) == 0 {
		return nil, errors.New("nothing to place: name manifests with -f, or a number of pods with --pods")
	}
	if c.Direct {
		return c.direct(ctx, nodes)
	}
	return c.onServer(ctx, nodes)
}

func usualPod() *corev1.Pod {
	p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "registry.k8s.io/pause:3.10", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("500Mi")},
	}}}}}
	p.Labels = map[string]string{"app": "simulated"}
	return p
}

// like is the nth of the pods that Config.Pods asks for.
func (c *Config) like(n int) *corev1.Pod {
	p := c.Pod.DeepCopy()
	p.Name = fmt.Sprintf("pod-%06d", n)
	if p.Namespace == "" {
		p.Namespace = corev1.NamespaceDefault
	}
	if p.Spec.SchedulerName == "" {
		p.Spec.SchedulerName = corev1.DefaultSchedulerName
	}
	return p
}

// direct decides on one pod after the other.
func (c *Config) direct(ctx context.Context, nodes []*corev1.Node) (*Result, error) {
	w := scheduler.NewWorld(c.Seed, c.Scheduler)
	for _, n := range nodes {
		w.Set(n)
	}
	var pods []*corev1.Pod
	for _, o := range c.Objects {
		switch o := o.(type) {
		case *corev1.Pod:
			pods = append(pods, o)
		case *corev1.Namespace:
			w.Set(o)
		default:
			return nil, fmt.Errorf("%T %s: with --direct there are no controllers to make pods of it; write Pods, or leave --direct out", o, o.GetName())
		}
	}
	for i := range c.Pods {
		pods = append(pods, c.like(i))
	}
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int { return int(priority(b)) - int(priority(a)) })
	t := newTally(c.Shapes, nodes)
	why := map[string]int{}
	began := time.Now()
	for i, p := range pods {
		if i%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		on, reason := w.Schedule(ctx, p)
		if on == "" {
			why[reason]++
		}
		p.Spec.NodeName = on
	}
	took := time.Since(began)
	for _, p := range pods {
		t.pod(p)
	}
	return t.result(took, why), nil
}

func priority(p *corev1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}
