package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/wire"
	"github.com/proa-dev/proa/internal/apiserver"
	"github.com/proa-dev/proa/internal/cache"
	"github.com/proa-dev/proa/internal/cluster/pki"
	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/encrypt"
	"github.com/proa-dev/proa/internal/store/etcd"
)

// Etcd says where and how a server keeps its objects.
type Etcd struct {
	Servers       []string // URLs of an etcd that runs elsewhere; nil = one inside
	CA, Cert, Key string   // files, for Servers
	Prefix        string   // before all keys, "" = /registry
	Quota         int64    // bytes that the etcd inside may keep, 0 = 8 GiB
	Snapshots     Snapshots

	// EncryptionFile is an EncryptionConfiguration, "" = values are kept as they are.
	EncryptionFile   string
	EncryptionReload bool // take over changes of the file while running
}

// storage is a server's store, and how values get into it.
type storage struct {
	store.Store
	values *encrypt.Values // nil = they are not encrypted
	prefix string
}

func (c *Config) openStorage(ctx context.Context) (*storage, error) {
	o := &c.Server.Etcd
	s := &storage{prefix: o.Prefix}
	if s.prefix == "" {
		s.prefix = etcd.DefaultPrefix
	}
	var err error
	if o.EncryptionFile != "" {
		if s.values, err = encrypt.Open(ctx, encrypt.Config{File: o.EncryptionFile, Reload: o.EncryptionReload, Prefix: s.prefix, Log: c.logFor("encryption")}); err != nil {
			return nil, err
		}
	}
	kept, err := c.openStore(ctx, s.prefix)
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	s.Store = kept
	return s, nil
}

func (c *Config) openStore(ctx context.Context, prefix string) (store.Store, error) {
	o := &c.Server.Etcd
	log := c.logFor("etcd")
	if len(o.Servers) == 0 {
		return etcd.Open(ctx, etcd.Config{Dir: c.DataDir + "/etcd", Prefix: prefix, Quota: o.Quota, Logger: log})
	}
	cfg := etcd.External{Endpoints: o.Servers, Prefix: prefix, Logger: log}
	if o.CA != "" || o.Cert != "" {
		t, err := pki.ClientTLS(o.CA, o.Cert, o.Key)
		if err != nil {
			return nil, fmt.Errorf("--etcd-cafile, --etcd-certfile, --etcd-keyfile: %w", err)
		}
		if o.Cert != "" { // read for every connection: it may have been renewed
			t.Certificates = nil
			t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
				return &pair, err
			}
		}
		cfg.TLS = t
	}
	return etcd.Dial(ctx, cfg)
}

// Close what is open of it.
func (s *storage) Close() error {
	if s.values != nil {
		s.values.Close()
	}
	if s.Store == nil {
		return nil
	}
	return s.Store.Close()
}

// cache of what is in the store.
func (s *storage) cache(c *Config, catalog *api.Catalog) *cache.Cache {
	cfg := cache.Config{Store: s, Catalog: catalog, Logger: c.logFor("cache"), Decode: s.decode}
	if s.values != nil {
		cfg.Again = s.values.Changed()
		cfg.Seal = func(ctx context.Context, k *api.Kind, key string, value []byte) ([]byte, error) {
			return s.values.Seal(ctx, k.GroupResource(), key, value)
		}
		cfg.Stale = func(k *api.Kind, e store.Entry, value []byte) bool {
			was, stale, err := s.values.Open(context.Background(), k.GroupResource(), e.Key, e.Value)
			return err == nil && (stale || !bytes.Equal(was, value))
		}
	}
	return cache.New(cfg)
}

func (s *storage) decode(k *api.Kind, e store.Entry) (api.Object, error) {
	value := e.Value
	if s.values != nil {
		var err error
		if value, _, err = s.values.Open(context.Background(), k.GroupResource(), e.Key, e.Value); err != nil {
			return nil, err
		}
	}
	obj, err := wire.DecodeStorage(k, value, e.Revision)
	switch {
	case err == nil:
		return obj, nil
	case s.values == nil && encrypt.Sealed(value):
		return nil, encrypt.Unknown(s.prefix+e.Key, value, "", k.GroupResource())
	}
	return nil, fmt.Errorf("%s: %w", s.prefix+e.Key, err)
}

// checks of what the store needs, for /readyz and /livez.
func (s *storage) checks() []apiserver.Check {
	if s.values == nil || !s.values.UsesKMS() {
		return nil
	}
	return []apiserver.Check{{Name: "kms-providers", Do: s.values.Check}}
}
