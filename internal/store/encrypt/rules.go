package encrypt

import (
	"context"
	"encoding/base64"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// sealer is one way to encrypt, with one key.
type sealer interface {
	// seal appends what is kept of value to dst. aad is what the value is bound to.
	seal(ctx context.Context, dst, aad, value []byte) ([]byte, error)
	// open makes the value again, in memory of its own.
	open(ctx context.Context, aad, data []byte) (value []byte, stale bool, err error)
	// grows is how many bytes seal adds, about.
	grows() int
}

// provider with one of its keys. The zero one is identity.
type provider struct {
	sealer
	prefix string // "k8s:enc:aescbc:v1:KEY:", "" = identity
}

func (p provider) name() string {
	parts := strings.SplitN(p.prefix, ":", 6)
	return providerName(parts[2], parts[3], strings.Join(parts[4:len(parts)-1], ":"))
}

// chain of providers, the first of which writes.
type chain []provider

// rules say which chain is responsible; immutable.
type rules struct {
	chains map[schema.GroupResource]chain // "*" stands for all resources, or groups
	kms    []*kms
	stop   context.CancelFunc
}

// chain of a resource, nil = it is not encrypted.
func (r *rules) chain(of schema.GroupResource) chain {
	if c, ok := r.chains[of]; ok {
		return c
	}
	if c, ok := r.chains[schema.GroupResource{Group: of.Group, Resource: "*"}]; ok {
		return c
	}
	return r.chains[schema.GroupResource{Group: "*", Resource: "*"}]
}

// start following the state of the KMS plugins.
func (r *rules) start(v *Values) {
	ctx, cancel := context.WithCancel(v.ctx)
	r.stop = cancel
	for _, k := range r.kms {
		k.log, k.well = v.log, v.tell
		_ = k.check(ctx) // that it is not well yet is said in the log
		v.wg.Go(func() { k.follow(ctx) })
	}
}

// newRules of a configuration that was validated.
func newRules(c *configuration) (*rules, error) {
	r := &rules{chains: map[schema.GroupResource]chain{}}
	for _, one := range c.Resources {
		var all chain
		for _, p := range one.Providers {
			more, err := r.providers(p)
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
		}
		for _, name := range one.Resources {
			gr := schema.ParseGroupResource(name)
			r.chains[gr] = append(r.chains[gr], all...)
		}
	}
	return r, nil
}

func (r *rules) providers(p providerConfig) (chain, error) {
	switch {
	case p.AESGCM != nil:
		return keyed("aesgcm", p.AESGCM.Keys, newGCM)
	case p.AESCBC != nil:
		return keyed("aescbc", p.AESCBC.Keys, newCBC)
	case p.Secretbox != nil:
		return keyed("secretbox", p.Secretbox.Keys, newBox)
	case p.KMS != nil:
		k, err := newKMS(p.KMS)
		if err != nil {
			return nil, err
		}
		r.kms = append(r.kms, k)
		return chain{{k, mark + "kms:v2:" + p.KMS.Name + ":"}}, nil
	}
	return chain{{}}, nil
}

func keyed(name string, keys []key, with func(secret []byte) (sealer, error)) (chain, error) {
	var all chain
	for _, k := range keys {
		secret, err := base64.StdEncoding.DecodeString(k.Secret)
		if err != nil {
			return nil, err
		}
		s, err := with(secret)
		if err != nil {
			return nil, err
		}
		all = append(all, provider{s, mark + name + ":v1:" + k.Name + ":"})
	}
	return all, nil
}
