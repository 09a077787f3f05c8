package ingress

import (
	"context"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/network/serviceslices"
)

// retry is how long to wait after a status could not be written.
const retry = 5 * time.Second

// Objects are what a cluster needs for its Ingresses: the class.
func Objects() *networkingv1.IngressClass {
	return &networkingv1.IngressClass{
		ObjectMeta: metav1.ObjectMeta{Name: ClassName, Annotations: map[string]string{annotationDefault: "true"}},
		Spec:       networkingv1.IngressClassSpec{Controller: Controller},
	}
}

// RunnerConfig says what a Runner keeps.
type RunnerConfig struct {
	// Server gets the tables, nil = none: status alone is written.
	Server *Server
	// Addresses are this server's, IPs or names: status.loadBalancer of served
	// Ingresses has them, beside those of the cluster's other nodes. nil = status
	// is left alone.
	Addresses []string
	Log       *slog.Logger
}

// Runner keeps a Server at what Ingresses, Services, slices and Secrets say.
type Runner struct {
	cfg       RunnerConfig
	ingresses *client.Informer[*networkingv1.Ingress]
	classes   *client.Informer[*networkingv1.IngressClass]
	services  *client.Informer[*corev1.Service]
	slices    *client.Informer[*discoveryv1.EndpointSlice]
	secrets   *secretWatches
	nodes     *client.Informer[*corev1.Node]
	of        *serviceslices.Index
	writer    client.Client[*networkingv1.Ingress]
	wake      chan struct{}
	told      map[Problem]bool // problems that have been logged
}

// NewRunner asks for its informers: make it before they run.
func NewRunner(cfg RunnerConfig, inf *client.Informers) *Runner {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	r := &Runner{
		cfg:       cfg,
		ingresses: client.Shared[*networkingv1.Ingress](inf, client.Scope{}),
		classes:   client.Shared[*networkingv1.IngressClass](inf, client.Scope{}),
		services:  client.Shared[*corev1.Service](inf, client.Scope{}),
		slices:    client.Shared[*discoveryv1.EndpointSlice](inf, client.Scope{}),
		nodes:     client.Shared[*corev1.Node](inf, client.Scope{}),
		writer:    client.For[*networkingv1.Ingress](inf.Conn()),
		wake:      make(chan struct{}, 1),
		told:      map[Problem]bool{},
	}
	stir := func() {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	r.ingresses.OnChange(func(_, _ *networkingv1.Ingress) { stir() })
	r.classes.OnChange(func(_, _ *networkingv1.IngressClass) { stir() })
	r.services.OnChange(func(_, _ *corev1.Service) { stir() })
	r.secrets = &secretWatches{conn: inf.Conn(), changed: stir, log: cfg.Log, all: map[types.NamespacedName]*secretWatch{}}
	r.of = serviceslices.New(r.slices, func(_, _ string) { stir() })
	return r
}

// Run works until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	for _, synced := range []<-chan struct{}{r.ingresses.Synced(), r.classes.Synced(), r.services.Synced(), r.slices.Synced(), r.nodes.Synced()} {
		select {
		case <-synced:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer r.secrets.close()
	served := make(chan []types.NamespacedName, 1)
	var writing sync.WaitGroup
	defer writing.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.cfg.Addresses != nil {
		writing.Go(func() { r.keepStatus(ctx, served) })
	}
	for {
		snapshot := r.snapshot()
		r.secrets.follow(ctx, secretsOf(snapshot))
		table := Decide(snapshot)
		r.tell(table.Problems)
		if r.cfg.Server != nil {
			if err := r.cfg.Server.Set(ctx, table); err != nil {
				return err
			}
		}
		select {
		case <-served: // an older one nobody took
		default:
		}
		served <- table.Served
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
		}
	}
}

// keepStatus tells every served Ingress where it is served. It may take its time:
// requests do not wait for it.
func (r *Runner) keepStatus(ctx context.Context, served <-chan []types.NamespacedName) {
	var last []types.NamespacedName
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case last = <-served:
		case <-again:
		}
		again = nil
		if err := r.writeStatus(ctx, last); err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("the status of an Ingress could not be written", "error", err)
			again = time.After(retry)
		}
	}
}

func (r *Runner) snapshot() Snapshot {
	return Snapshot{
		Ingresses: r.ingresses.List("", nil),
		Class:     func(name string) *networkingv1.IngressClass { return found(r.classes.Get("", name)) },
		Service:   func(ns, name string) *corev1.Service { return found(r.services.Get(ns, name)) },
		Slices:    r.of.Of,
		Secret:    r.secrets.get,
	}
}

func found[T any](obj *T, ok bool) *T {
	if !ok {
		return nil
	}
	return obj
}

// tell logs what is new of the problems.
func (r *Runner) tell(problems []Problem) {
	now := map[Problem]bool{}
	for _, p := range problems {
		if now[p] = true; !r.told[p] {
			r.cfg.Log.Warn("an Ingress is not served as written", "ingress", p.Ingress.String(), "problem", p.Message)
		}
	}
	r.told = now
}

func (r *Runner) writeStatus(ctx context.Context, served []types.NamespacedName) error {
	for _, name := range served {
		ing, ok := r.ingresses.Get(name.Namespace, name.Name)
		if !ok {
			continue
		}
		want := Status(ing.Status.LoadBalancer.Ingress, r.cfg.Addresses, r.nodes.List("", nil))
		if reflect.DeepEqual(ing.Status.LoadBalancer.Ingress, want) {
			continue
		}
		ing = ing.DeepCopy()
		ing.Status.LoadBalancer.Ingress = want
		// Gone or changed meanwhile: the change wakes us again.
		if _, err := r.writer.UpdateStatus(ctx, ing); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
	}
	return nil
}

// Status of an Ingress that is served at own addresses, and had is what it said:
// what is another node's address stays, what is nobody's goes.
func Status(had []networkingv1.IngressLoadBalancerIngress, own []string, nodes []*corev1.Node) []networkingv1.IngressLoadBalancerIngress {
	known := map[string]bool{}
	for _, n := range nodes {
		for _, a := range n.Status.Addresses {
			known[a.Address] = true
		}
	}
	all := slices.Clone(own)
	for _, h := range had {
		if a := h.IP + h.Hostname; known[a] {
			all = append(all, a)
		}
	}
	slices.Sort(all)
	var out []networkingv1.IngressLoadBalancerIngress
	for _, a := range slices.Compact(all) {
		if _, err := netip.ParseAddr(a); err == nil {
			out = append(out, networkingv1.IngressLoadBalancerIngress{IP: a})
		} else {
			out = append(out, networkingv1.IngressLoadBalancerIngress{Hostname: a})
		}
	}
	return out
}
