package clienttest_test

import (
	"context"
	"io"
	"net"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver"
	"github.com/proa-dev/proa/internal/apiserver/inprocess"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/clienttest"
	"github.com/proa-dev/proa/internal/client/local"
	"github.com/proa-dev/proa/internal/client/remote"
	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/memory"
)

func catalog(t *testing.T) *api.Catalog {
	t.Helper()
	c := kinds.Catalog()
	if err := c.Put(clienttest.Widget()); err != nil {
		t.Fatal(err)
	}
	return c
}

// server is an API server on a store in memory, with the namespace "default".
func server(t *testing.T, change ...func(*apiserver.Config)) (*apiserver.Server, local.Config) {
	t.Helper()
	catalog, s := catalog(t), memory.New()
	c := cache.New(cache.Config{Store: s, Catalog: catalog, Decode: func(k *api.Kind, e store.Entry) (api.Object, error) {
		return wire.DecodeStorage(k, e.Value, e.Revision)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx)
	}()
	t.Cleanup(func() {
		if err := c.Verify(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
		_ = s.Close()
	})
	config := apiserver.Config{Catalog: catalog, Cache: c, Store: s}
	for _, f := range change {
		f(&config)
	}
	srv, err := apiserver.New(config)
	if err != nil {
		t.Fatal(err)
	}
	user := &inprocess.User{Verbs: srv.Verbs(), User: &request.User{Name: "test", Groups: []string{request.Masters}}}
	cfg := local.Config{Server: user, Cache: c, Catalog: catalog, Manager: "test"}
	ns := client.For[*corev1.Namespace](local.New(cfg))
	if _, err := ns.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}); err != nil {
		t.Fatal(err)
	}
	return srv, cfg
}

func TestLocal(t *testing.T) {
	clienttest.Run(t, func(t *testing.T) client.Conn {
		_, cfg := server(t)
		return local.New(cfg)
	})
}

func dial(t *testing.T, url string) *remote.Conn {
	t.Helper()
	conn, err := remote.New(remote.Config{
		REST:    &rest.Config{Host: url, TLSClientConfig: rest.TLSClientConfig{Insecure: true}},
		Catalog: catalog(t), Manager: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestRemote(t *testing.T) {
	clienttest.Run(t, func(t *testing.T) client.Conn {
		srv, _ := server(t)
		h := httptest.NewUnstartedServer(srv.Handler())
		h.EnableHTTP2 = true
		h.StartTLS()
		t.Cleanup(func() {
			h.CloseClientConnections()
			h.Close()
		})
		return dial(t, h.URL)
	})
}

// TestReconnect cuts all connections; what changed meanwhile is told afterwards,
// once.
func TestReconnect(t *testing.T) {
	srv, cfg := server(t)
	h := httptest.NewUnstartedServer(srv.Handler())
	h.StartTLS()
	t.Cleanup(func() {
		h.CloseClientConnections()
		h.Close()
	})
	p := &proxy{to: h.Listener.Addr().String()}
	url := p.listen(t)
	far, near := dial(t, url), local.New(cfg)
	secrets := client.For[*corev1.Secret](near)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	create := func(name string) {
		if _, err := secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	create("one")
	create("two")
	events, err := far.Watch(ctx, secrets.Kind(), client.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	told := map[string]int{}
	until := func(name string, n int) {
		for told[name] < n {
			batch, err := events.Next(ctx)
			if err != nil {
				t.Fatal(err, told)
			}
			for _, e := range batch {
				if e.New != nil {
					told["+"+e.New.GetName()]++
				} else {
					told["-"+e.Old.GetName()]++
				}
			}
		}
	}
	until("+two", 1)
	p.cut(true)
	if err := secrets.Delete(ctx, "default", "one", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	create("three")
	p.cut(false)
	until("-one", 1)
	until("+three", 1)
	if told["+one"] != 1 || told["+two"] != 1 || told["+three"] != 1 || told["-one"] != 1 {
		t.Error("told:", told)
	}
}

// proxy passes bytes on, or refuses to.
type proxy struct {
	to    string
	down  atomic.Bool
	conns chan net.Conn
}

func (p *proxy) listen(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p.conns = make(chan net.Conn, 1000)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", p.to)
			if err != nil || p.down.Load() {
				_ = in.Close()
				continue
			}
			p.conns <- in
			p.conns <- out
			go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
		}
	}()
	return "https://" + l.Addr().String()
}

func (p *proxy) cut(down bool) {
	p.down.Store(down)
	for {
		select {
		case c := <-p.conns:
			_ = c.Close()
		default:
			return
		}
	}
}
