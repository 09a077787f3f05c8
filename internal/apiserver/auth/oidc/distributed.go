package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// source of claims that are not in a token itself (_claim_sources).
type source struct {
	URL string `json:"endpoint"`
	// AccessToken is shown to the endpoint, if there is one.
	AccessToken string `json:"access_token"`
}

// sources of the claims that a token says are elsewhere (_claim_names), by claim.
// Aggregated claims, whose source is a token that lies in this one, are not read.
func (c claims) sources() (map[string]source, error) {
	if c["_claim_names"] == nil {
		return nil, nil
	}
	var in struct {
		Names   map[string]string `json:"_claim_names"`
		Sources map[string]source `json:"_claim_sources"`
	}
	text, err := json.Marshal(map[string]any{"_claim_names": c["_claim_names"], "_claim_sources": c["_claim_sources"]})
	if err == nil {
		err = json.Unmarshal(text, &in)
	}
	if err != nil {
		return nil, fmt.Errorf("oidc: failed to unmarshal claims: %w", err)
	}
	all := make(map[string]source, len(in.Names))
	for claim, name := range in.Names {
		s, ok := in.Sources[name]
		switch {
		case name == "":
			return nil, errors.New("oidc: failed to obtain source from claim name")
		case !ok:
			return nil, errors.New("oidc: source does not exist")
		}
		all[claim] = s
	}
	return all, nil
}

// expand fetches a claim that is not in a token but elsewhere, and puts it there.
// until is when what was fetched ends; zero = nothing was.
func (i *issuer) expand(ctx context.Context, c claims, claim string) (until time.Time, err error) {
	if _, ok := c[claim]; ok {
		return until, nil
	}
	all, err := c.sources()
	from := all[claim]
	if err != nil || from.URL == "" {
		return until, err
	}
	token, err := i.claimToken(ctx, from)
	if err != nil {
		return until, fmt.Errorf("while getting distributed claim %q: %w", claim, err)
	}
	name, ok := issuerOf(token)
	if !ok {
		return until, fmt.Errorf("getting untrusted issuer from endpoint %v failed for claim %q: the answer is no token", from.URL, claim)
	}
	got, until, err := i.check(ctx, i.others.of(i.keys, name), token)
	if err != nil {
		return until, fmt.Errorf("verify distributed claim token: %w", err)
	}
	value, ok := got[claim]
	if !ok {
		return until, fmt.Errorf("jwt returned by distributed claim endpoint %q did not contain claim: %v", from.URL, claim)
	}
	c[claim] = value
	return until, nil
}

// claimToken asks an endpoint for the token that holds a claim.
func (i *issuer) claimToken(ctx context.Context, from source) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from.URL, nil)
	if err != nil {
		return "", fmt.Errorf("while calling %v: %w", from.URL, err)
	}
	if from.AccessToken != "" {
		r.Header.Set("Authorization", "Bearer "+from.AccessToken)
	}
	text, status, err := i.keys.ask(r)
	if err != nil {
		return "", err
	}
	if status.code < http.StatusOK || status.code > http.StatusIMUsed {
		return "", fmt.Errorf("error while getting distributed claim JWT: %v", status.text)
	}
	return string(text), nil
}

// siblings are the keys of those who sign distributed claims, which may be others
// than who has signed the token that names them.
type siblings struct {
	mu  sync.Mutex
	all map[string]*keys // by issuer
}

// manySiblings is how many are remembered: there is one, as a rule.
const manySiblings = 64

func (s *siblings) of(k *keys, issuer string) *keys {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.all[issuer]; have != nil {
		return have
	}
	if s.all == nil || len(s.all) >= manySiblings {
		s.all = map[string]*keys{}
	}
	s.all[issuer] = k.sibling(issuer)
	return s.all[issuer]
}
