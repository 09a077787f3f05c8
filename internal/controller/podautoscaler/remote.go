package podautoscaler

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"github.com/proa-dev/proa/internal/api"
)

// remote is the API as everybody sees it, with paths and JSON: metrics and scales
// may be served by anybody.
type remote struct {
	catalog *api.Catalog
	via     http.RoundTripper

	mu      sync.Mutex
	clients map[schema.GroupVersion]*rest.RESTClient
}

// answersWithin bounds one request, or one change of a scale with its repetitions.
const answersWithin = 30 * time.Second

func newRemote(catalog *api.Catalog, via http.RoundTripper) *remote {
	return &remote{catalog: catalog, via: via, clients: map[schema.GroupVersion]*rest.RESTClient{}}
}

func (a *remote) client(gv schema.GroupVersion) (*rest.RESTClient, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.clients[gv]; c != nil {
		return c, nil
	}
	config := &rest.Config{
		Host: "https://kubernetes.default.svc", Transport: a.via, UserAgent: "kube-controller-manager", APIPath: "/apis", QPS: -1,
		ContentConfig: rest.ContentConfig{GroupVersion: &gv, NegotiatedSerializer: scheme.Codecs.WithoutConversion()},
	}
	if gv.Group == "" {
		config.APIPath = "/api"
	}
	c, err := rest.RESTClientFor(config)
	if err == nil {
		a.clients[gv] = c
	}
	return c, err
}

// get JSON at …/RESOURCE[/NAME/SUBRESOURCE…]. Errors are StatusErrors.
func (a *remote) get(ctx context.Context, gv schema.GroupVersion, namespace, resource string, rest []string, params map[string]string) ([]byte, error) {
	c, err := a.client(gv)
	if err != nil {
		return nil, err
	}
	r := c.Get().Namespace(namespace).Resource(resource)
	if len(rest) > 0 {
		r = r.Name(rest[0])
	}
	if len(rest) > 1 {
		r = r.SubResource(rest[1:]...)
	}
	for key, value := range params {
		if value != "" {
			r = r.Param(key, value)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	return answer(r.Do(ctx))
}

// answer of the server; what it says of an error is in Error, not in Raw.
func answer(r rest.Result) ([]byte, error) {
	if err := r.Error(); err != nil {
		return nil, err
	}
	return r.Raw()
}

// group as discovery tells of it; NotFound = nobody serves it.
func (a *remote) group(ctx context.Context, name string) (*metav1.APIGroup, error) {
	g := &metav1.APIGroup{}
	return g, a.discover(ctx, "/apis/"+name, g)
}

func (a *remote) discover(ctx context.Context, path string, into any) error {
	c, err := a.client(schema.GroupVersion{Version: "v1"})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	data, err := answer(c.Get().AbsPath(path).Do(ctx))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// resources that objects of a kind are found under, one for each version, the
// preferred one first. There is at least one, or an error: meta.NoKindMatchError.
func (a *remote) resources(ctx context.Context, kind schema.GroupKind) (all []schema.GroupVersionResource, err error) {
	for _, k := range a.catalog.All() {
		served := []api.Served{{Kind: k}}
		for i := range k.Shapes {
			served = append(served, api.Served{Kind: k, Shape: &k.Shapes[i]})
		}
		for _, s := range served {
			if s.GVK().GroupKind() == kind {
				all = append(all, s.GVK().GroupVersion().WithResource(s.Plural()))
			}
		}
	}
	if len(all) > 0 || kind.Group == "" {
		return all, orNoMatch(all, kind)
	}
	// Somebody else's server may have it.
	g, err := a.group(ctx, kind.Group)
	if err != nil {
		if apierrors.IsNotFound(err) {
			err = &meta.NoKindMatchError{GroupKind: kind}
		}
		return nil, err
	}
	for _, v := range g.Versions {
		var list metav1.APIResourceList
		if err := a.discover(ctx, "/apis/"+v.GroupVersion, &list); err != nil {
			return nil, err
		}
		for _, r := range list.APIResources {
			if r.Kind == kind.Kind && r.Group == "" && !isSub(r.Name) {
				all = append(all, schema.GroupVersionResource{Group: kind.Group, Version: v.Version, Resource: r.Name})
			}
		}
	}
	return all, orNoMatch(all, kind)
}

func orNoMatch(all []schema.GroupVersionResource, kind schema.GroupKind) error {
	if len(all) == 0 {
		return &meta.NoKindMatchError{GroupKind: kind}
	}
	return nil
}

func isSub(name string) bool {
	for i := range name {
		if name[i] == '/' {
			return true
		}
	}
	return false
}

// target is what an autoscaler scales.
type target struct {
	namespace, name string
	resource        schema.GroupVersionResource
	scale           *autoscalingv1.Scale
}

// target of an autoscaler, in the first version that has a scale.
func (a *remote) target(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler) (*target, error) {
	ref := &h.Spec.ScaleTargetRef
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, err
	}
	found, err := a.resources(ctx, schema.GroupKind{Group: gv.Group, Kind: ref.Kind})
	if err != nil {
		return nil, err
	}
	var first error
	for _, r := range found {
		t := &target{namespace: h.Namespace, name: ref.Name, resource: r}
		err := a.readScale(ctx, t)
		if err == nil {
			return t, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func (a *remote) readScale(ctx context.Context, t *target) error {
	data, err := a.get(ctx, t.resource.GroupVersion(), t.namespace, t.resource.Resource, []string{t.name, "scale"}, nil)
	if err != nil {
		return err
	}
	scale := &autoscalingv1.Scale{}
	if err := json.Unmarshal(data, scale); err != nil {
		return fmt.Errorf("the scale of %s %s: %w", t.resource.Resource, t.name, err)
	}
	t.scale = scale
	return nil
}

// rescale the target; whoever else changes it meanwhile only delays it.
func (a *remote) rescale(ctx context.Context, t *target, replicas int32) error {
	c, err := a.client(t.resource.GroupVersion())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	scale := t.scale
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		want := scale.DeepCopy()
		want.Spec.Replicas = replicas
		body, err := json.Marshal(want)
		if err != nil {
			return err
		}
		err = c.Put().Namespace(t.namespace).Resource(t.resource.Resource).Name(t.name).SubResource("scale").
			SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
		if apierrors.IsConflict(err) {
			again := *t
			if a.readScale(ctx, &again) == nil {
				scale = again.scale
			}
		}
		return err
	})
}
