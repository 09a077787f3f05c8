package encrypt

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"

	"golang.org/x/crypto/nacl/secretbox"
)

var (
	errShort = errors.New("the value is cut off")
	errWrong = errors.New("it was made with another secret, belongs to another key, or is damaged")
)

// gcm is AES-GCM: a random nonce of 12 bytes, then what it encrypts, bound to aad.
type gcm struct{ cipher.AEAD }

func newGCM(secret []byte) (sealer, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return gcm{aead}, err
}

func (g gcm) grows() int { return g.NonceSize() + g.Overhead() }

func (g gcm) seal(_ context.Context, dst, aad, value []byte) ([]byte, error) {
	dst = random(dst, g.NonceSize())
	return g.Seal(dst, dst[len(dst)-g.NonceSize():], value, aad), nil
}

func (g gcm) open(_ context.Context, aad, data []byte) ([]byte, bool, error) {
	n := g.NonceSize()
	if len(data) < n {
		return nil, false, errShort
	}
	value, err := g.Open(nil, data[:n], data[n:], aad)
	if err != nil {
		return nil, false, errWrong
	}
	return value, false, nil
}

// cbc is AES-CBC with PKCS#7 padding: a random vector of 16 bytes, then what it
// encrypts. Nothing binds a value to its key, or shows that it was changed.
type cbc struct{ block cipher.Block }

func newCBC(secret []byte) (sealer, error) {
	block, err := aes.NewCipher(secret)
	return cbc{block}, err
}

func (c cbc) grows() int { return 2 * aes.BlockSize }

func (c cbc) seal(_ context.Context, dst, _, value []byte) ([]byte, error) {
	dst = random(dst, aes.BlockSize)
	vector := dst[len(dst)-aes.BlockSize:]
	from := len(dst)
	pad := aes.BlockSize - len(value)%aes.BlockSize
	dst = append(append(dst, value...), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(c.block, vector).CryptBlocks(dst[from:], dst[from:])
	return dst, nil
}

func (c cbc) open(_ context.Context, _, data []byte) ([]byte, bool, error) {
	if len(data) < 2*aes.BlockSize || len(data)%aes.BlockSize != 0 {
		return nil, false, errShort
	}
	value := make([]byte, len(data)-aes.BlockSize)
	cipher.NewCBCDecrypter(c.block, data[:aes.BlockSize]).CryptBlocks(value, data[aes.BlockSize:])
	pad := int(value[len(value)-1])
	if pad == 0 || pad > aes.BlockSize || !bytes.Equal(value[len(value)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, false, errWrong
	}
	return value[:len(value)-pad], false, nil
}

// box is NaCl's secretbox: a random nonce of 24 bytes, then what it encrypts.
// Nothing binds a value to its key.
type box struct{ key [32]byte }

const boxNonce = 24

func newBox(secret []byte) (sealer, error) {
	if len(secret) != 32 {
		return nil, errors.New("a key of secretbox has 32 bytes")
	}
	return &box{[32]byte(secret)}, nil
}

func (b *box) grows() int { return boxNonce + secretbox.Overhead }

func (b *box) seal(_ context.Context, dst, _, value []byte) ([]byte, error) {
	dst = random(dst, boxNonce)
	return secretbox.Seal(dst, value, (*[boxNonce]byte)(dst[len(dst)-boxNonce:]), &b.key), nil
}

func (b *box) open(_ context.Context, _, data []byte) ([]byte, bool, error) {
	if len(data) < boxNonce+secretbox.Overhead {
		return nil, false, errShort
	}
	value, ok := secretbox.Open(nil, data[boxNonce:], (*[boxNonce]byte)(data[:boxNonce]), &b.key)
	if !ok {
		return nil, false, errWrong
	}
	return value, false, nil
}

// derived is AES-GCM with a key of its own for each value: the first 32 bytes of
// HKDF-Expand (RFC 5869) of a seed and 32 random bytes, which come first.
type derived struct{ seed []byte }

const (
	seedSize = 32
	infoSize = 32
)

func newDerived(seed []byte) (sealer, error) {
	if len(seed) < seedSize {
		return nil, errors.New("the seed is too short")
	}
	return derived{seed}, nil
}

func (d derived) with(info []byte) (sealer, error) {
	secret, err := hkdf.Expand(sha256.New, d.seed, string(info), 32)
	if err != nil {
		return nil, err
	}
	return newGCM(secret)
}

func (d derived) grows() int { return infoSize + 12 + 16 }

func (d derived) seal(ctx context.Context, dst, aad, value []byte) ([]byte, error) {
	dst = random(dst, infoSize)
	g, err := d.with(dst[len(dst)-infoSize:])
	if err != nil {
		return nil, err
	}
	return g.seal(ctx, dst, aad, value)
}

func (d derived) open(ctx context.Context, aad, data []byte) ([]byte, bool, error) {
	if len(data) < infoSize {
		return nil, false, errShort
	}
	g, err := d.with(data[:infoSize])
	if err != nil {
		return nil, false, err
	}
	return g.open(ctx, aad, data[infoSize:])
}

// random appends n random bytes. rand.Read never fails.
func random(dst []byte, n int) []byte {
	dst = append(dst, make([]byte, n)...)
	rand.Read(dst[len(dst)-n:])
	return dst
}
