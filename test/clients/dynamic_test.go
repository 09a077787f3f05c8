package clients

import (
	"context"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/proa-dev/proa/test/clients/proa"
)

// TestDynamicClient does with objects of a definition what a program can do that
// does not know their type.
func TestDynamicClient(t *testing.T) {
	s := proa.Start(t)
	defineWidgets(t, s.Config())
	dyn := must(dynamic.NewForConfig(s.Config()))(t)
	widgets := dyn.Resource(widgetResource).Namespace("default")
	factory := dynamicinformer.NewDynamicSharedInformerFactory(dyn, 0)
	informer := factory.ForResource(widgetResource)
	_ = informer.Informer()
	ctx, stop := context.WithCancel(t.Context())
	defer factory.Shutdown()
	defer stop()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.Informer().HasSynced) {
		t.Fatal("the informer does not get in step")
	}

	a := must(widgets.Create(ctx, widget("a", map[string]any{"color": "red", "unknown": "x"}), metav1.CreateOptions{}))(t)
	if size, _, _ := unstructured.NestedInt64(a.Object, "spec", "size"); size != 1 {
		t.Errorf("no default was set: %v", a.Object["spec"])
	}
	if _, kept, _ := unstructured.NestedString(a.Object, "spec", "unknown"); kept {
		t.Error("what the schema does not know was kept")
	}
	if _, err := widgets.Create(ctx, widget("b", map[string]any{"size": int64(0)}), metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("too small a size: %v", err)
	}
	must(widgets.Create(ctx, widget("b", map[string]any{"color": "blue"}), metav1.CreateOptions{}))(t)
	a = must(widgets.Patch(ctx, "a", types.MergePatchType, []byte(`{"spec":{"size":3},"status":{"size":9}}`), metav1.PatchOptions{}))(t)
	if _, there := a.Object["status"]; there || a.GetGeneration() != 2 {
		t.Errorf("generation %d, status %v", a.GetGeneration(), a.Object["status"])
	}
	a.Object["status"] = map[string]any{"size": int64(3), "selector": "of=a"}
	a = must(widgets.UpdateStatus(ctx, a, metav1.UpdateOptions{}))(t)
	if a.GetGeneration() != 2 {
		t.Error("a status is a new generation")
	}
	old := a.DeepCopy()
	must(widgets.Patch(ctx, "a", types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/size","value":4}]`), metav1.PatchOptions{}))(t)
	if _, err := widgets.Update(ctx, old, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("an update of an old revision: %v", err)
	}
	if list := must(widgets.List(ctx, metav1.ListOptions{FieldSelector: "spec.color=blue"}))(t); len(list.Items) != 1 || list.Items[0].GetName() != "b" {
		t.Errorf("blue ones: %v", list.Items)
	}
	proa.Eventually(t, "the informer has it", func(context.Context) error {
		obj, err := informer.Lister().ByNamespace("default").Get("a")
		if err != nil {
			return err
		}
		if size, _, _ := unstructured.NestedInt64(obj.(*unstructured.Unstructured).Object, "spec", "size"); size != 4 {
			return fmt.Errorf("with size %d", size)
		}
		return nil
	})
	if _, err := widgets.Get(ctx, "a", metav1.GetOptions{}, "nothing"); !apierrors.IsNotFound(err) {
		t.Errorf("a subresource that is not served: %v", err)
	}
	check(t, widgets.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	proa.Eventually(t, "the informer has none", func(context.Context) error {
		if n := len(informer.Informer().GetStore().List()); n > 0 {
			return fmt.Errorf("it has %d", n)
		}
		return nil
	})
}

// TestScaleClient scales what it has no type for, and what is built in.
func TestScaleClient(t *testing.T) {
	s := proa.Start(t)
	defineWidgets(t, s.Config())
	widgets := must(dynamic.NewForConfig(s.Config()))(t).Resource(widgetResource).Namespace("default")
	must(widgets.Create(t.Context(), widget("a", map[string]any{"size": int64(2)}), metav1.CreateOptions{}))(t)
	disc := must(discovery.NewDiscoveryClientForConfig(s.Config()))(t)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disc))
	scales := must(scale.NewForConfig(s.Config(), mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(disc)))(t).Scales("default")
	now := must(scales.Get(t.Context(), widgetResource.GroupResource(), "a", metav1.GetOptions{}))(t)
	now.Spec.Replicas = 5
	if now = must(scales.Update(t.Context(), widgetResource.GroupResource(), now, metav1.UpdateOptions{}))(t); now.Spec.Replicas != 5 {
		t.Errorf("it has %d replicas", now.Spec.Replicas)
	}
	w := must(widgets.Get(t.Context(), "a", metav1.GetOptions{}))(t)
	if size, _, _ := unstructured.NestedInt64(w.Object, "spec", "size"); size != 5 {
		t.Errorf("it is of size %d", size)
	}
	now = must(scales.Patch(t.Context(), widgetResource, "a", types.MergePatchType, []byte(`{"spec":{"replicas":7}}`), metav1.PatchOptions{}))(t)
	if now.Spec.Replicas != 7 {
		t.Errorf("it has %d replicas", now.Spec.Replicas)
	}
}

// TestMetadataClient reads, changes and follows what any object has.
func TestMetadataClient(t *testing.T) {
	s := proa.Start(t)
	defineWidgets(t, s.Config())
	widgets := must(dynamic.NewForConfig(s.Config()))(t).Resource(widgetResource).Namespace("default")
	client := must(metadata.NewForConfig(s.Config()))(t)
	metas := client.Resource(widgetResource).Namespace("default")
	for i := range 25 {
		must(widgets.Create(t.Context(), widget(fmt.Sprint("w", i), map[string]any{"size": int64(i + 1)}), metav1.CreateOptions{}))(t)
	}
	seen := 0
	for options := (metav1.ListOptions{Limit: 10}); ; {
		list := must(metas.List(t.Context(), options))(t)
		seen += len(list.Items)
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	if seen != 25 {
		t.Errorf("%d of 25 are listed", seen)
	}
	factory := metadatainformer.NewSharedInformerFactory(client, 0)
	informer := factory.ForResource(widgetResource).Informer()
	ctx, stop := context.WithCancel(t.Context())
	defer factory.Shutdown()
	defer stop()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) || len(informer.GetStore().List()) != 25 {
		t.Fatal("the informer does not get in step")
	}
	one := must(metas.Patch(ctx, "w3", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}))(t)
	if one.Labels["a"] != "b" {
		t.Errorf("it is %v", one)
	}
	list := must(metas.List(ctx, metav1.ListOptions{LabelSelector: "a=b"}))(t)
	check(t, metas.Delete(ctx, "w3", metav1.DeleteOptions{}))
	last := must(watchtools.Until(ctx, list.ResourceVersion, &cache.ListWatch{WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		return metas.Watch(ctx, o)
	}}, func(e watch.Event) (bool, error) { return e.Type == watch.Deleted, nil }))(t)
	if gone, ok := last.Object.(*metav1.PartialObjectMetadata); !ok || gone.Name != "w3" {
		t.Errorf("the watch ends with %v", last.Object)
	}
}

// TestDiscovery sees what is served change with a definition.
func TestDiscovery(t *testing.T) {
	s := proa.Start(t)
	disc := must(discovery.NewDiscoveryClientForConfig(s.Config()))(t)
	cached := memory.NewMemCacheClient(disc)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(cached)
	for _, kind := range []string{"Deployment.v1.apps", "HorizontalPodAutoscaler.v2.autoscaling"} {
		gvk, _ := schema.ParseKindArg(kind)
		must(mapper.RESTMapping(gvk.GroupKind(), gvk.Version))(t)
	}
	defineWidgets(t, s.Config())
	mapper.Reset()
	m := must(mapper.RESTMapping(widgetGroup.WithKind("Widget").GroupKind()))(t)
	if m.Resource != widgetResource {
		t.Errorf("widgets are %v", m.Resource)
	}
	lists := must(disc.ServerPreferredResources())(t)
	if len(lists) < 20 {
		t.Errorf("%d groups have preferred resources", len(lists))
	}
	paths := must(disc.OpenAPIV3().Paths())(t)
	doc := must(paths["apis/example.com/v1"].Schema("application/json"))(t)
	if len(doc) == 0 {
		t.Error("the definition has no schema")
	}
	if v := must(disc.ServerVersion())(t); v.Minor != "36" {
		t.Errorf("version %v", v)
	}
}
