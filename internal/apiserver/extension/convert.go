package extension

import (
	"bytes"
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/apiserver/extension/hook"
)

// converter of a definition, nil when versions differ in their name alone.
func (r *Resources) converter(d *apiextensionsv1.CustomResourceDefinition) converter {
	c := d.Spec.Conversion
	if c == nil || c.Strategy != apiextensionsv1.WebhookConverter || c.Webhook == nil || c.Webhook.ClientConfig == nil {
		return nil
	}
	to := hook.Target{Name: "conversion webhook for " + d.Name}
	if ca := c.Webhook.ClientConfig.CABundle; len(bytes.TrimSpace(ca)) > 0 {
		to.CABundle = ca
	}
	if c.Webhook.ClientConfig.URL != nil {
		to.URL = *c.Webhook.ClientConfig.URL
	}
	if s := c.Webhook.ClientConfig.Service; s != nil {
		to.Service = &hook.Service{Namespace: s.Namespace, Name: s.Name, Port: 443}
		if s.Path != nil {
			to.Service.Path = *s.Path
		}
		if s.Port != nil {
			to.Service.Port = *s.Port
		}
	}
	w := &webhook{hooks: r.Hooks, to: to, within: r.ConvertWithin, versions: c.Webhook.ConversionReviewVersions}
	if w.within <= 0 {
		w.within = convertWithin
	}
	return w.convert
}

// convert an object, which may be changed, into a version of the definition.
func (c *custom) convert(obj api.Object, to schema.GroupVersionKind) (api.Object, error) {
	u := obj.(*unstructured.Unstructured)
	if u.GroupVersionKind() == to {
		return u, nil
	}
	out, err := c.convertAll([]api.Object{obj}, to)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// convertAll of several objects, none of which is changed.
func (c *custom) convertAll(objs []api.Object, to schema.GroupVersionKind) ([]api.Object, error) {
	v := c.versions[to.Version]
	if v == nil || v.gvk != to {
		return nil, fmt.Errorf("request to convert CR to an invalid group/version: %s", to.GroupVersion())
	}
	out := make([]api.Object, len(objs))
	var ask []*unstructured.Unstructured
	var whose []int
	for i, obj := range objs {
		u := obj.(*unstructured.Unstructured)
		from := u.GroupVersionKind()
		switch known := c.versions[from.Version]; {
		case from == to:
			out[i] = u
		case u.GetName() == "": // no object yet, or a bookmark
			out[i] = renamed(u, to)
		case known == nil || known.gvk != from:
			return nil, fmt.Errorf("request to convert CR from an invalid group/version: %s", from.GroupVersion())
		case c.webhook != nil:
			ask, whose = append(ask, u), append(whose, i)
		default:
			n := renamed(u, to)
			if _, err := v.prune(n); err != nil {
				return nil, err
			}
			out[i] = n
		}
	}
	if len(ask) == 0 {
		return out, nil
	}
	answered, err := c.webhook(ask, to)
	if err != nil {
		return nil, err
	}
	for n, u := range answered {
		if _, err := v.prune(u); err != nil {
			return nil, err
		}
		out[whose[n]] = u
	}
	return out, nil
}

// in is an object in a version, itself if it is in that already.
func (c *custom) in(u *unstructured.Unstructured, v *version) (*unstructured.Unstructured, error) {
	out, err := c.convertAll([]api.Object{u}, v.gvk)
	if err != nil {
		return nil, err
	}
	return out[0].(*unstructured.Unstructured), nil
}

func renamed(u *unstructured.Unstructured, to schema.GroupVersionKind) *unstructured.Unstructured {
	n := u.DeepCopy()
	n.SetGroupVersionKind(to)
	return n
}
