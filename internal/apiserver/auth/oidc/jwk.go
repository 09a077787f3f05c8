package oidc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
)

// webKey is a public key of an issuer.
type webKey struct {
	id, alg string // "" = not said
	public  any    // *rsa.PublicKey, *ecdsa.PublicKey
}

// jsonKey is a JSON Web Key (RFC 7517, RFC 7518 section 6).
type jsonKey struct {
	Type string `json:"kty"`
	ID   string `json:"kid"`
	Alg  string `json:"alg"`
	Use  string `json:"use"`
	N    string `json:"n"`
	E    string `json:"e"`
	Crv  string `json:"crv"`
	X    string `json:"x"`
	Y    string `json:"y"`
}

// errOtherUse is for keys that sign nothing we could check.
var errOtherUse = errors.New("a key for another use")

func (j *jsonKey) key() (webKey, error) {
	k := webKey{id: j.ID, alg: j.Alg}
	if j.Use != "" && j.Use != "sig" {
		return k, errOtherUse
	}
	var err error
	switch j.Type {
	case "RSA":
		k.public, err = j.rsa()
	case "EC":
		k.public, err = j.ecdsa()
	default:
		err = errOtherUse
	}
	return k, err
}

func (j *jsonKey) rsa() (*rsa.PublicKey, error) {
	n, err := base64.RawURLEncoding.DecodeString(j.N)
	if err != nil {
		return nil, fmt.Errorf("n: %w", err)
	}
	e, err := base64.RawURLEncoding.DecodeString(j.E)
	if err != nil {
		return nil, fmt.Errorf("e: %w", err)
	}
	exponent := new(big.Int).SetBytes(e)
	if len(n) == 0 || !exponent.IsInt64() || exponent.Int64() < 3 || exponent.Int64() >= 1<<31 {
		return nil, errors.New("n or e is out of range")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
}

func (j *jsonKey) ecdsa() (*ecdsa.PublicKey, error) {
	curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[j.Crv]
	if curve == nil {
		return nil, errOtherUse
	}
	x, err := base64.RawURLEncoding.DecodeString(j.X)
	if err != nil {
		return nil, fmt.Errorf("x: %w", err)
	}
	y, err := base64.RawURLEncoding.DecodeString(j.Y)
	if err != nil {
		return nil, fmt.Errorf("y: %w", err)
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(x) > size || len(y) > size {
		return nil, errors.New("x or y is too long")
	}
	point := make([]byte, 1+2*size) // 4 ‖ X ‖ Y (SEC 1, 2.3.3)
	point[0] = 4
	copy(point[1+size-len(x):], x)
	copy(point[1+2*size-len(y):], y)
	return ecdsa.ParseUncompressedPublicKey(curve, point)
}
