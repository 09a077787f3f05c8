package encrypt

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	// The message of a stored value, nothing but generated code.
	stored "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
	api "k8s.io/kms/apis/v2"
)

// How often a plugin is asked for its state, and how long its seed is good for
// writing after it last was well: KEP-3299.
const (
	askWell   = time.Minute
	askUnwell = 10 * time.Second
	seedLasts = 3 * time.Minute

	rememberWell   = 20 * time.Second // for health checks
	rememberUnwell = 3 * time.Second
)

// Limits of what a plugin may answer.
const (
	maxKeyID       = 1 << 10
	maxSeed        = 1 << 10
	maxAnnotations = 32 << 10
)

// kms is a plugin (KMS v2): it encrypts a seed, from which a key for each value is
// derived here. The plugin is asked again only when its key changes, and for the
// seeds of others.
type kms struct {
	pluginName string
	conn       *grpc.ClientConn
	api        api.KeyManagementServiceClient
	timeout    time.Duration
	log        *slog.Logger
	now        func() time.Time
	well       func() // called when the plugin is well after it was not

	writes atomic.Pointer[seed]
	seeds  seeds

	mu      sync.Mutex // one check at a time
	version string
	checked time.Time
	err     error // of the last check
}

// seed that values are written with.
type seed struct {
	sealer
	form    stored.EncryptedObject // all but the data
	expires time.Time
}

func newKMS(c *kmsConfig) (*kms, error) {
	target := c.Endpoint
	if name, ok := strings.CutPrefix(target, "unix:///@"); ok {
		target = "unix-abstract:" + name
	}
	conn, err := grpc.NewClient(target, grpc.WithAuthority("localhost"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return nil, fmt.Errorf("the KMS plugin %q at %s: %w", c.Name, c.Endpoint, err)
	}
	k := &kms{pluginName: c.Name, conn: conn, api: api.NewKeyManagementServiceClient(conn), timeout: kmsTimeout, now: time.Now, log: slog.New(slog.DiscardHandler), well: func() {}}
	if c.Timeout != nil {
		k.timeout = c.Timeout.Duration
	}
	k.seeds.plugin = k
	return k, nil
}

func (k *kms) grows() int {
	if s := k.writes.Load(); s != nil {
		return s.grows() + proto.Size(&s.form) + 16
	}
	return 0
}

func (k *kms) seal(ctx context.Context, dst, aad, value []byte) ([]byte, error) {
	s := k.writes.Load()
	if s == nil {
		return nil, fmt.Errorf("the plugin has not been well yet: %w", k.failure())
	}
	if k.now().After(s.expires) {
		return nil, fmt.Errorf("the plugin has not been well for %s: %w", seedLasts, k.failure())
	}
	data, err := s.seal(ctx, make([]byte, 0, len(value)+s.grows()), aad, value)
	if err != nil {
		return nil, err
	}
	o := stored.EncryptedObject{KeyID: s.form.KeyID, EncryptedDEKSource: s.form.EncryptedDEKSource, EncryptedDEKSourceType: s.form.EncryptedDEKSourceType, Annotations: s.form.Annotations, EncryptedData: data}
	return proto.MarshalOptions{}.MarshalAppend(dst, &o)
}

func (k *kms) open(ctx context.Context, aad, data []byte) ([]byte, bool, error) {
	o := &stored.EncryptedObject{}
	if err := proto.Unmarshal(data, o); err != nil {
		return nil, false, errShort
	}
	if err := checkStored(o); err != nil {
		return nil, false, err
	}
	s, err := k.seeds.get(ctx, o)
	if err != nil {
		return nil, false, err
	}
	value, _, err := s.open(ctx, aad, o.EncryptedData)
	w := k.writes.Load()
	stale := w == nil || o.KeyID != w.form.KeyID || o.EncryptedDEKSourceType != w.form.EncryptedDEKSourceType
	return value, stale, err
}

func checkStored(o *stored.EncryptedObject) error {
	if len(o.EncryptedData) == 0 {
		return errShort
	}
	return checkSeed(o)
}

func checkSeed(o *stored.EncryptedObject) error {
	size := 0
	for name, v := range o.Annotations {
		if err := validation.IsFullyQualifiedDomainName(field.NewPath("annotations"), name); err != nil {
			return err.ToAggregate()
		}
		size += len(name) + len(v)
	}
	switch {
	case o.EncryptedDEKSourceType != stored.EncryptedDEKSourceType_AES_GCM_KEY && o.EncryptedDEKSourceType != stored.EncryptedDEKSourceType_HKDF_SHA256_XNONCE_AES_GCM_SEED:
		return fmt.Errorf("its kind of key, %d, is not known", o.EncryptedDEKSourceType)
	case len(o.EncryptedDEKSource) == 0 || len(o.EncryptedDEKSource) > maxSeed:
		return fmt.Errorf("the plugin's ciphertext has %d bytes: 1 to %d are allowed", len(o.EncryptedDEKSource), maxSeed)
	case len(o.KeyID) == 0 || len(o.KeyID) > maxKeyID:
		return fmt.Errorf("the plugin's key ID has %d bytes: 1 to %d are allowed", len(o.KeyID), maxKeyID)
	case size > maxAnnotations:
		return fmt.Errorf("the plugin's annotations have %d bytes: at most %d are allowed", size, maxAnnotations)
	}
	return nil
}

// follow the plugin's state until ctx ends.
func (k *kms) follow(ctx context.Context) {
	defer k.conn.Close()
	for {
		next := askWell
		if k.failure() != nil {
			next = askUnwell
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(next):
			_ = k.check(ctx)
		}
	}
}

func (k *kms) failure() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// check how the plugin is, unless that was done just now.
func (k *kms) check(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	remember := rememberWell
	if k.err != nil {
		remember = rememberUnwell
	}
	if !k.checked.IsZero() && k.now().Sub(k.checked) < remember {
		return k.err
	}
	was, first := k.err, k.checked.IsZero()
	k.err = k.ask(ctx)
	k.checked = k.now()
	switch {
	case k.err != nil && (was == nil || first) && ctx.Err() == nil:
		k.log.Error("a KMS plugin is not well: what it has encrypted can be read as far as it is in memory, and after three minutes nothing of it can be written", "plugin", k.pluginName, "err", k.err)
	case k.err == nil && was != nil:
		k.log.Info("a KMS plugin is well again", "plugin", k.pluginName)
		k.seeds.forgive()
		k.well()
	}
	return k.err
}

// ask for the state, and for a new seed if the plugin's key is another.
func (k *kms) ask(ctx context.Context) error {
	status, err := call(ctx, k, k.api.Status, &api.StatusRequest{})
	if err != nil {
		return fmt.Errorf("the KMS plugin %q does not answer: %w", k.pluginName, err)
	}
	expires := k.now().Add(seedLasts)
	switch {
	case status.Healthz != "ok":
		return fmt.Errorf("the KMS plugin %q says it is not well: %s", k.pluginName, status.Healthz)
	case status.Version != "v2" && status.Version != "v2beta1":
		return fmt.Errorf("the KMS plugin %q speaks %q: v2 is needed", k.pluginName, status.Version)
	case k.version != "" && status.Version != k.version:
		return fmt.Errorf("the KMS plugin %q spoke %q before, now %q", k.pluginName, k.version, status.Version)
	}
	k.version = status.Version
	if s := k.writes.Load(); s != nil && s.form.KeyID == status.KeyId {
		longer := &seed{sealer: s.sealer, expires: expires}
		proto.Merge(&longer.form, &s.form)
		k.writes.Store(longer)
		return nil
	}
	return k.rotate(ctx, status.KeyId, expires)
}

// rotate makes a new seed under the plugin's key.
func (k *kms) rotate(ctx context.Context, keyID string, expires time.Time) error {
	plain := make([]byte, seedSize)
	rand.Read(plain)
	answer, err := call(ctx, k, k.api.Encrypt, &api.EncryptRequest{Plaintext: plain, Uid: uuid.NewString()})
	if err != nil {
		return fmt.Errorf("the KMS plugin %q does not encrypt: %w", k.pluginName, err)
	}
	if answer.KeyId != keyID {
		return fmt.Errorf("the KMS plugin %q encrypts with another key than its status names", k.pluginName)
	}
	s := &seed{expires: expires}
	s.form.KeyID, s.form.EncryptedDEKSource, s.form.Annotations = answer.KeyId, answer.Ciphertext, answer.Annotations
	s.form.EncryptedDEKSourceType = stored.EncryptedDEKSourceType_HKDF_SHA256_XNONCE_AES_GCM_SEED
	if err := checkSeed(&s.form); err != nil {
		return fmt.Errorf("the KMS plugin %q: %w", k.pluginName, err)
	}
	if s.sealer, err = newDerived(plain); err != nil {
		return err
	}
	k.seeds.put(&s.form, s.sealer)
	k.writes.Store(s)
	k.log.Info("values are encrypted under a new key of a KMS plugin", "plugin", k.pluginName, "keyIDHash", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(keyID))))
	return nil
}

// unseal asks the plugin for a seed.
func (k *kms) unseal(ctx context.Context, o *stored.EncryptedObject) (sealer, error) {
	answer, err := call(ctx, k, k.api.Decrypt, &api.DecryptRequest{Ciphertext: o.EncryptedDEKSource, Uid: uuid.NewString(), KeyId: o.KeyID, Annotations: o.Annotations})
	if err != nil {
		return nil, fmt.Errorf("the plugin cannot decrypt its part: %w", err)
	}
	if o.EncryptedDEKSourceType == stored.EncryptedDEKSourceType_HKDF_SHA256_XNONCE_AES_GCM_SEED {
		return newDerived(answer.Plaintext)
	}
	return newGCM(answer.Plaintext)
}

// call a plugin, for as long as is configured.
func call[Q, A any](ctx context.Context, k *kms, method func(context.Context, Q, ...grpc.CallOption) (A, error), request Q) (A, error) {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	answer, err := method(ctx, request)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s: %w", k.timeout, err)
	}
	return answer, err
}
