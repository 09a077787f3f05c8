package placement

import (
	"context"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver"
	"github.com/proa-dev/proa/internal/apiserver/inprocess"
	"github.com/proa-dev/proa/internal/apiserver/request"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/local"
	"github.com/proa-dev/proa/internal/controller/volume"
	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/memory"
)

// startServer serves Proa's API from memory, with no controller but the one that
// binds volumes: those that look after nodes and pods would have a say in what is
// compared. It returns its address and a connection to it.
func startServer(t *testing.T) (string, client.Conn) {
	t.Helper()
	catalog, st := kinds.Catalog(), memory.New()
	c := cache.New(cache.Config{Store: st, Catalog: catalog, Decode: func(k *api.Kind, e store.Entry) (api.Object, error) {
		return wire.DecodeStorage(k, e.Value, e.Revision)
	}})
	srv, err := apiserver.New(apiserver.Config{Catalog: catalog, Cache: c, Store: st})
	if err != nil {
		t.Fatal(err)
	}
	user := &inprocess.User{Verbs: srv.Verbs(), User: &request.User{Name: "test", Groups: []string{request.Masters}}}
	conn := local.New(local.Config{Server: user, Cache: c, Catalog: catalog, Manager: "test"})
	inf := client.NewInformers(conn)
	volumes := volume.New(inf, volume.Config{Path: func(_, name string) string { return "/" + name }, Remove: func(_, _ string) error { return nil }}, quiet())
	ctx, cancel := context.WithCancel(context.Background())
	web := httptest.NewServer(srv.Handler())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	wg.Go(func() { _ = inf.Run(ctx) })
	wg.Go(func() { _ = volumes.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		web.CloseClientConnections()
		web.Close()
		wg.Wait()
		_ = st.Close()
	})
	return web.URL, conn
}
