package remote

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// options of a write as query parameters.
func (c *Conn) options(r *rest.Request, opt client.WriteOptions) *rest.Request {
	manager := opt.Manager
	if manager == "" {
		manager = c.cfg.Manager
	}
	if manager != "" {
		r.Param("fieldManager", manager)
	}
	if opt.DryRun {
		r.Param("dryRun", metav1.DryRunAll)
	}
	if opt.Force {
		r.Param("force", "true")
	}
	return r
}

// Create implements client.Conn.
func (c *Conn) Create(ctx context.Context, k *api.Kind, obj api.Object, opt client.WriteOptions) (api.Object, error) {
	typed(k, obj)
	r := c.options(c.request("POST", k, obj.GetNamespace()), opt).Body(obj)
	if opt.Subresource == "" {
		return answer(k, r.Do(ctx))
	}
	out, err := r.Name(obj.GetName()).SubResource(opt.Subresource).Do(ctx).Get()
	if err != nil {
		return nil, err
	}
	back, _ := out.(api.Object) // a Status is no object
	return back, nil
}

// typed gives an unstructured object its apiVersion and kind.
func typed(k *api.Kind, obj api.Object) {
	if k.Encoding != api.Protobuf {
		obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	}
}

// Update implements client.Conn.
func (c *Conn) Update(ctx context.Context, k *api.Kind, obj api.Object, opt client.WriteOptions) (api.Object, error) {
	r := c.request("PUT", k, obj.GetNamespace()).Name(obj.GetName())
	if isPart(k, opt.Subresource) {
		return part(c.options(r.SubResource(opt.Subresource), opt).Body(obj).Do(ctx))
	}
	typed(k, obj)
	return answer(k, c.options(below(r, opt.Subresource), opt).Body(obj).Do(ctx))
}

// Patch implements client.Conn.
func (c *Conn) Patch(ctx context.Context, k *api.Kind, namespace, name string, p client.Patch, opt client.WriteOptions) (api.Object, error) {
	r := c.options(below(c.request("PATCH", k, namespace).Name(name), opt.Subresource), opt).
		SetHeader("Content-Type", string(p.Type)).Body(p.Data)
	if isPart(k, opt.Subresource) {
		return part(r.Do(ctx))
	}
	return answer(k, r.Do(ctx))
}

func below(r *rest.Request, sub string) *rest.Request {
	if sub == "" {
		return r
	}
	return r.SubResource(sub)
}

func isPart(k *api.Kind, sub string) bool {
	s := k.Subresource(sub)
	return s != nil && s.Get != nil && s.Set != nil
}

// part is an answer of another kind than the object: a Scale.
func part(r rest.Result) (api.Object, error) {
	obj, err := r.Get()
	if err != nil {
		return nil, err
	}
	return obj.(api.Object), nil
}

// Delete implements client.Conn.
func (c *Conn) Delete(ctx context.Context, k *api.Kind, namespace, name string, opt metav1.DeleteOptions) error {
	return c.request("DELETE", k, namespace).Name(name).Body(&opt).Do(ctx).Error()
}

// Post implements client.Conn.
func (c *Conn) Post(ctx context.Context, k *api.Kind, namespace, name, sub string, body runtime.Object) (runtime.Object, error) {
	r := c.options(c.request("POST", k, namespace), client.WriteOptions{})
	if name != "" {
		r.Name(name)
	}
	return below(r, sub).Body(body).Do(ctx).Get()
}

// DeleteAll implements client.Collector.
func (c *Conn) DeleteAll(ctx context.Context, k *api.Kind, namespace, fields string) error {
	return c.request("DELETE", k, namespace).VersionedParams(&metav1.ListOptions{FieldSelector: fields}, c.paramsOf(k)).Do(ctx).Error()
}
