package clients

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/scheme"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/proa-dev/proa/test/clients/proa"
)

const finalizer = "example.com/clean"

// operator reconciles Widgets as most operators do: a finalizer, an object that it
// owns, and a status.
type operator struct {
	client.Client
	mu      sync.Mutex
	cleaned map[string]int // how often it cleaned up after whom
}

func (o *operator) Reconcile(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	w := &Widget{}
	if err := o.Get(ctx, r.NamespacedName, w); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !w.DeletionTimestamp.IsZero() {
		if controllerutil.RemoveFinalizer(w, finalizer) {
			if err := o.Update(ctx, w); err != nil {
				return reconcile.Result{}, err
			}
			o.mu.Lock()
			o.cleaned[w.Name]++
			o.mu.Unlock()
		}
		return reconcile.Result{}, nil
	}
	if controllerutil.AddFinalizer(w, finalizer) {
		return reconcile.Result{}, o.Update(ctx, w)
	}
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: w.Name}}
	if _, err := controllerutil.CreateOrUpdate(ctx, o, m, func() error {
		m.Data = map[string]string{"size": fmt.Sprint(w.Spec.Size), "color": w.Spec.Color}
		return controllerutil.SetControllerReference(w, m, o.Scheme())
	}); err != nil {
		return reconcile.Result{}, err
	}
	before := w.DeepCopyObject().(*Widget)
	w.Status.Size = w.Spec.Size
	meta.SetStatusCondition(&w.Status.Conditions, metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Made", ObservedGeneration: w.Generation})
	return reconcile.Result{}, o.Status().Patch(ctx, w, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}

func testScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	check(t, clientgoscheme.AddToScheme(s))
	check(t, (&scheme.Builder{GroupVersion: widgetGroup}).Register(&Widget{}, &WidgetList{}).AddToScheme(s))
	return s
}

// startManager with what prepare puts into it, until the test ends.
func startManager(t *testing.T, conf *rest.Config, hooks webhook.Server, prepare func(ctrl.Manager)) ctrl.Manager {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	mgr := must(ctrl.NewManager(conf, ctrl.Options{
		Scheme: testScheme(t), Metrics: metricsserver.Options{BindAddress: "0"}, WebhookServer: hooks,
		LeaderElection: true, LeaderElectionID: "operator", LeaderElectionNamespace: "default", LeaderElectionReleaseOnCancel: true,
		Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	}))(t)
	prepare(mgr)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the manager: %v", err)
		}
	})
	return mgr
}

// TestControllerRuntime runs an operator: what it owns follows its objects, also when
// somebody else deletes it, and when the server is killed; finalizers run once; its
// cache answers by an index.
func TestControllerRuntime(t *testing.T) {
	s := proa.Start(t)
	defineWidgets(t, s.Config())
	o := &operator{cleaned: map[string]int{}}
	mgr := startManager(t, s.Config(), nil, func(mgr ctrl.Manager) {
		o.Client = mgr.GetClient()
		check(t, mgr.GetFieldIndexer().IndexField(t.Context(), &Widget{}, "spec.color", func(obj client.Object) []string {
			return []string{obj.(*Widget).Spec.Color}
		}))
		check(t, ctrl.NewControllerManagedBy(mgr).For(&Widget{}).Owns(&corev1.ConfigMap{}).Complete(o))
	})
	c := must(client.New(s.Config(), client.Options{Scheme: mgr.GetScheme()}))(t) // reads the server, not a cache
	ctx := t.Context()
	made := func(name string, size int32) {
		t.Helper()
		proa.Eventually(t, name+" is made", func(ctx context.Context) error {
			w, m := &Widget{}, &corev1.ConfigMap{}
			key := client.ObjectKey{Namespace: "default", Name: name}
			if err := errors.Join(c.Get(ctx, key, w), c.Get(ctx, key, m)); err != nil {
				return err
			}
			if ready := meta.FindStatusCondition(w.Status.Conditions, "Ready"); w.Status.Size != size || ready == nil || ready.ObservedGeneration != w.Generation || m.Data["size"] != fmt.Sprint(size) {
				return fmt.Errorf("its status is %v, its map has %v", w.Status, m.Data)
			}
			return nil
		})
	}
	for i := range 20 {
		w := &Widget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("w", i)}, Spec: WidgetSpec{Size: int32(i + 1), Color: []string{"red", "blue"}[i%2]}}
		check(t, c.Create(ctx, w))
	}
	for i := range 20 {
		made(fmt.Sprint("w", i), int32(i+1))
	}
	red := &WidgetList{}
	check(t, mgr.GetClient().List(ctx, red, client.InNamespace("default"), client.MatchingFields{"spec.color": "red"}))
	if len(red.Items) != 10 {
		t.Errorf("%d are red", len(red.Items))
	}

	s.Kill()
	s.Up()
	w := &Widget{}
	check(t, c.Get(ctx, client.ObjectKey{Namespace: "default", Name: "w3"}, w))
	w.Spec.Size = 33
	check(t, c.Update(ctx, w))
	made("w3", 33)
	check(t, c.Delete(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "w4"}}))
	made("w4", 5)
	applied := widget("w5", map[string]any{"size": int64(55)})
	check(t, c.Apply(ctx, client.ApplyConfigurationFromUnstructured(applied), client.FieldOwner("applier"), client.ForceOwnership))
	made("w5", 55)

	for i := range 5 {
		check(t, c.Delete(ctx, &Widget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("w", i)}}))
	}
	for i := range 5 {
		key := client.ObjectKey{Namespace: "default", Name: fmt.Sprint("w", i)}
		proa.Eventually(t, key.Name+" goes, and its map", func(ctx context.Context) error {
			if err := c.Get(ctx, key, &Widget{}); !apierrors.IsNotFound(err) {
				return fmt.Errorf("the widget: %v", err)
			}
			if err := c.Get(ctx, key, &corev1.ConfigMap{}); !apierrors.IsNotFound(err) {
				return fmt.Errorf("the map: %v", err)
			}
			return nil
		})
		o.mu.Lock()
		if o.cleaned[key.Name] != 1 {
			t.Errorf("the finalizer of %s ran %d times", key.Name, o.cleaned[key.Name])
		}
		o.mu.Unlock()
	}
}
