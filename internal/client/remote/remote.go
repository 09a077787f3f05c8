// Package remote is the client.Conn to an API server elsewhere: HTTPS through
// client-go's rest, protobuf for built-in kinds, JSON for custom resources, and
// client-go's reflector for watches.
package remote

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/client"
)

// Config of a connection.
type Config struct {
	REST    *rest.Config // where the server is, whom to trust, who we are; without client-side rate limits
	Catalog *api.Catalog // the kinds that are spoken of
	Manager string       // field manager of writes that name none
	Logger  *slog.Logger
}

// Conn implements client.Conn.
type Conn struct {
	cfg    Config
	http   *http.Client
	scheme *runtime.Scheme
	codecs serializer.CodecFactory
	params runtime.ParameterCodec

	mu      sync.Mutex
	clients map[clientKey]rest.Interface
}

type clientKey struct {
	schema.GroupVersion
	api.Encoding
}

// New connection. Nothing is sent yet.
func New(cfg Config) (*Conn, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.REST = rest.CopyConfig(cfg.REST)
	cfg.REST.QPS = -1
	if cfg.REST.UserAgent == "" {
		cfg.REST.UserAgent = "proa"
	}
	cfg.REST.WarningHandlerWithContext = warnings{cfg.Logger}
	h, err := rest.HTTPClientFor(cfg.REST)
	if err != nil {
		return nil, fmt.Errorf("connection to %s: %w", cfg.REST.Host, err)
	}
	c := &Conn{cfg: cfg, http: h, scheme: schemeOf(cfg.Catalog), clients: map[clientKey]rest.Interface{}}
	c.codecs = serializer.NewCodecFactory(c.scheme)
	c.params = runtime.NewParameterCodec(c.scheme)
	return c, nil
}

// schemeOf registers the Go types of the catalog and of its subresources' bodies.
func schemeOf(catalog *api.Catalog) *runtime.Scheme {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	add := func(gvk schema.GroupVersionKind, obj runtime.Object) {
		if !s.Recognizes(gvk) {
			s.AddKnownTypeWithName(gvk, obj)
			metav1.AddToGroupVersion(s, gvk.GroupVersion())
		}
	}
	for _, k := range catalog.All() {
		if k.Encoding != api.Protobuf {
			continue
		}
		add(k.GroupVersionKind, k.New())
		if k.NewList != nil {
			list := k.GroupVersionKind
			list.Kind += "List"
			add(list, k.NewList())
		}
		for _, sub := range k.Subresources {
			if sub.Body != nil && sub.Kind.Kind != "" {
				add(sub.Kind, sub.Body())
			}
		}
	}
	return s
}

// warnings of the server go to the log.
type warnings struct{ log *slog.Logger }

func (w warnings) HandleWarningHeaderWithContext(ctx context.Context, _ int, _ string, text string) {
	if text != "" {
		w.log.DebugContext(ctx, "the API server warns", "warning", text)
	}
}

// Catalog implements client.Conn.
func (c *Conn) Catalog() *api.Catalog { return c.cfg.Catalog }

// rest client for a kind's group and version.
func (c *Conn) rest(k *api.Kind) (rest.Interface, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := clientKey{k.GroupVersion(), k.Encoding}
	if r := c.clients[key]; r != nil {
		return r, nil
	}
	var cfg *rest.Config
	if k.Encoding == api.Protobuf {
		cfg = rest.CopyConfig(c.cfg.REST)
		cfg.NegotiatedSerializer = c.codecs.WithoutConversion()
		cfg.ContentType = runtime.ContentTypeProtobuf
		cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	} else {
		cfg = dynamic.ConfigFor(c.cfg.REST)
	}
	gv := k.GroupVersion()
	cfg.GroupVersion, cfg.APIPath = &gv, "/apis"
	if gv.Group == "" {
		cfg.APIPath = "/api"
	}
	r, err := rest.RESTClientForConfigAndClient(cfg, c.http)
	if err != nil {
		return nil, err
	}
	c.clients[key] = r
	return r, nil
}

// request to a kind. method is "GET", …
func (c *Conn) request(method string, k *api.Kind, namespace string) *rest.Request {
	r, err := c.rest(k)
	if err != nil { // the Config was good for New, so this is a mistake in a kind
		panic(fmt.Sprintf("remote: %v: %v", k.GroupVersionKind, err))
	}
	return r.Verb(method).NamespaceIfScoped(namespace, !k.Cluster && namespace != "").Resource(k.Resource)
}

// Get implements client.Conn.
func (c *Conn) Get(ctx context.Context, k *api.Kind, namespace, name string) (api.Object, error) {
	return answer(k, c.request("GET", k, namespace).Name(name).Do(ctx))
}

func answer(k *api.Kind, r rest.Result) (api.Object, error) {
	obj := k.New()
	if err := r.Into(obj); err != nil {
		return nil, err
	}
	return plain(k, obj), nil
}

// plain empties the TypeMeta of typed objects, as everywhere in Proa.
func plain(k *api.Kind, obj api.Object) api.Object {
	if k.Encoding == api.Protobuf {
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	return obj
}

// List implements client.Conn.
func (c *Conn) List(ctx context.Context, k *api.Kind, namespace string, opt client.ListOptions) ([]api.Object, string, error) {
	o := metav1.ListOptions{}
	if opt.Labels != nil {
		o.LabelSelector = opt.Labels.String()
	}
	if opt.Index != "" {
		o.FieldSelector = fields.OneTermEqualSelector(opt.Index, opt.Value).String()
	}
	list, err := c.list(ctx, k, namespace, o)
	if err != nil {
		return nil, "", err
	}
	var objs []api.Object
	err = meta.EachListItem(list, func(o runtime.Object) error {
		objs = append(objs, plain(k, o.(api.Object)))
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	return objs, list.(metav1.ListInterface).GetResourceVersion(), nil
}

func (c *Conn) list(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) (runtime.Object, error) {
	list := k.NewList()
	if err := c.request("GET", k, namespace).VersionedParams(&o, c.paramsOf(k)).Do(ctx).Into(list); err != nil {
		return nil, err
	}
	return list, nil
}

// paramsOf encodes options for a kind's group and version.
func (c *Conn) paramsOf(k *api.Kind) runtime.ParameterCodec {
	if k.Encoding == api.Protobuf {
		return c.params
	}
	return v1Params{c.params}
}

// v1Params encodes options for groups that the scheme does not know.
type v1Params struct{ runtime.ParameterCodec }

func (p v1Params) EncodeParameters(obj runtime.Object, _ schema.GroupVersion) (url.Values, error) {
	return p.ParameterCodec.EncodeParameters(obj, schema.GroupVersion{Version: "v1"})
}
