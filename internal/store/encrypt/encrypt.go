// Package encrypt keeps values encrypted at rest, written and read as Kubernetes
// does it: an EncryptionConfiguration (apiserver.config.k8s.io/v1) says which
// resources, with which providers and keys; a value is then
// "k8s:enc:PROVIDER:VERSION:KEY:" and what the provider made of it, bound to its
// key in etcd. KMS v2 is KEP-3299.
package encrypt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// mark is what every encrypted value begins with. No other value does: JSON
// begins with "{", protobuf with "k8s\x00".
const mark = "k8s:enc:"

// Sealed says whether a stored value is encrypted.
func Sealed(data []byte) bool { return bytes.HasPrefix(data, []byte(mark)) }

// Config of Values.
type Config struct {
	File   string // the EncryptionConfiguration
	Reload bool   // take over changes of the file while running
	Prefix string // before all keys in etcd ("/registry"): a value is bound to its whole key
	Log    *slog.Logger
}

// Values encrypts and decrypts what the store keeps.
type Values struct {
	cfg  Config
	log  *slog.Logger
	now  atomic.Pointer[rules]
	hash [sha256.Size]byte // of the file that now was made of

	changed chan struct{}

	ctx    context.Context // of everything that runs in the background
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Open reads the configuration and connects to its KMS plugins. One that does not
// answer is no error: what needs it fails until it does.
func Open(ctx context.Context, cfg Config) (*Values, error) {
	v := &Values{cfg: cfg, log: cfg.Log, changed: make(chan struct{}, 1)}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	v.ctx, v.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r, err := v.load()
	if err != nil {
		v.Close()
		return nil, err
	}
	v.now.Store(r)
	if cfg.Reload {
		if err := v.follow(); err != nil {
			v.Close()
			return nil, err
		}
	}
	return v, nil
}

// load the file into new rules, whose plugins are then watched.
func (v *Values) load() (*rules, error) {
	data, err := os.ReadFile(v.cfg.File)
	if err != nil {
		return nil, fmt.Errorf("--encryption-provider-config: %w", err)
	}
	r, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("--encryption-provider-config %s: %w", v.cfg.File, err)
	}
	v.hash = sha256.Sum256(data)
	r.start(v)
	return r, nil
}

// Close ends what runs in the background.
func (v *Values) Close() {
	v.cancel()
	v.wg.Wait()
}

// Seal makes of a value what is kept of it. key is the store's, without the
// prefix. The error says what is missing; nothing may be written then.
func (v *Values) Seal(ctx context.Context, of schema.GroupResource, key string, value []byte) ([]byte, error) {
	c := v.now.Load().chain(of)
	if len(c) == 0 || c[0].prefix == "" {
		return value, nil
	}
	p := c[0]
	out := make([]byte, 0, len(p.prefix)+len(value)+p.grows())
	out, err := p.seal(ctx, append(out, p.prefix...), []byte(v.cfg.Prefix+key), value)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be encrypted with %s: %w", v.cfg.Prefix+key, p.name(), err)
	}
	return out, nil
}

// Open makes the value again of what is kept. stale says that Seal would now do
// it with another provider or key.
func (v *Values) Open(ctx context.Context, of schema.GroupResource, key string, data []byte) (value []byte, stale bool, err error) {
	c := v.now.Load().chain(of)
	if !Sealed(data) {
		// Of several providers, identity may be any; without it plain values are
		// nobody's.
		for i := range c {
			if c[i].prefix == "" {
				return data, i > 0, nil
			}
		}
		if len(c) > 0 {
			return nil, false, fmt.Errorf(`%s is not encrypted, and %s has no provider "identity: {}" for %s: add it, as the last one`, v.cfg.Prefix+key, v.cfg.File, of)
		}
		return data, false, nil
	}
	var failed []error
	for i := range c {
		p := c[i]
		if p.prefix == "" || !bytes.HasPrefix(data, []byte(p.prefix)) {
			continue
		}
		value, stale, err := p.open(ctx, []byte(v.cfg.Prefix+key), data[len(p.prefix):])
		if err == nil {
			return value, stale || i > 0, nil
		}
		failed = append(failed, fmt.Errorf("%s cannot be decrypted with %s of %s: %w", v.cfg.Prefix+key, p.name(), v.cfg.File, err))
	}
	if len(failed) > 0 {
		return nil, false, errors.Join(failed...)
	}
	return nil, false, Unknown(v.cfg.Prefix+key, data, v.cfg.File, of)
}

// Unknown is the error of a value that is encrypted with what the configuration
// ("" = there is none) does not have.
func Unknown(key string, data []byte, file string, of schema.GroupResource) error {
	if file == "" {
		return fmt.Errorf("%s is encrypted with %s: start the server with the configuration it was written with, by --encryption-provider-config FILE", key, nameOf(data))
	}
	return fmt.Errorf("%s is encrypted with %s, which %s does not have for %s: add it there, after what is written with", key, nameOf(data), file, of)
}

// nameOf the provider and key that a value says it was encrypted with: nothing of
// what comes after.
func nameOf(data []byte) string {
	parts := strings.SplitN(string(data[:min(len(data), 300)]), ":", 6)
	if len(parts) < 6 {
		return "something unknown"
	}
	for _, p := range parts[2:5] {
		if strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r > '~' }) {
			return "something unknown"
		}
	}
	return providerName(parts[2], parts[3], parts[4])
}

func providerName(provider, version, key string) string {
	if provider == "kms" {
		return fmt.Sprintf("the KMS (%s) plugin %q", version, key)
	}
	return fmt.Sprintf("%s key %q", provider, key)
}
