package encrypt

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	stored "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
)

// seeds that a plugin has decrypted. There is one for each key of the plugin and
// start of a server that wrote.
type seeds struct {
	plugin *kms
	asking singleflight.Group

	mu  sync.Mutex
	all map[[sha256.Size]byte]*known
}

type known struct {
	sealer sealer
	err    error // why there is none, remembered for a while
	used   time.Time
}

// seedsKept is how long a seed stays that is not used.
const seedsKept = 24 * time.Hour

// get the seed of a stored value.
func (s *seeds) get(ctx context.Context, o *stored.EncryptedObject) (sealer, error) {
	id := seedID(o)
	if k := s.known(id); k != nil {
		return k.sealer, k.err
	}
	got, err, _ := s.asking.Do(string(id[:]), func() (any, error) {
		one, err := s.plugin.unseal(context.WithoutCancel(ctx), o)
		s.add(id, &known{sealer: one, err: err})
		return one, err
	})
	if err != nil {
		return nil, err
	}
	return got.(sealer), nil
}

func (s *seeds) known(id [sha256.Size]byte) *known {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.all[id]
	if k == nil || k.err != nil && s.plugin.now().Sub(k.used) > rememberUnwell {
		return nil
	}
	if k.err == nil {
		k.used = s.plugin.now()
	}
	return k
}

func (s *seeds) put(o *stored.EncryptedObject, one sealer) { s.add(seedID(o), &known{sealer: one}) }

func (s *seeds) add(id [sha256.Size]byte, k *known) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k.used = s.plugin.now()
	maps.DeleteFunc(s.all, func(_ [sha256.Size]byte, old *known) bool { return k.used.Sub(old.used) > seedsKept })
	if s.all == nil {
		s.all = map[[sha256.Size]byte]*known{}
	}
	s.all[id] = k
}

// forgive forgets what went wrong.
func (s *seeds) forgive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.all, func(_ [sha256.Size]byte, k *known) bool { return k.err != nil })
}

// seedID tells seeds apart: a hash of everything the plugin decrypts one by.
func seedID(o *stored.EncryptedObject) [sha256.Size]byte {
	var b []byte
	add := func(part []byte) {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(part))), part...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(o.EncryptedDEKSourceType))
	add(o.EncryptedDEKSource)
	add([]byte(o.KeyID))
	for _, name := range slices.Sorted(maps.Keys(o.Annotations)) {
		add([]byte(name))
		add(o.Annotations[name])
	}
	return sha256.Sum256(b)
}
