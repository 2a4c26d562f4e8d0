package keystore

import (
	"bytes"
	"crypto/aes"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// kwpPrefix is the constant half of the alternative initial value, RFC 5649,
// section 3.
const kwpPrefix = 0xa65959a6

// unwrapKWP undoes AES key wrap with padding (RFC 5649, section 4.2). The caller
// wipes what it returns.
func unwrapKWP(key, wrapped []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("%w: it is wrapped under an AES key of %d bytes", ErrInvalidCiphertext, len(key))
	}
	if len(wrapped) < aes.BlockSize || len(wrapped)%8 != 0 {
		return nil, fmt.Errorf("%w: %d bytes are no wrapped key", ErrInvalidCiphertext, len(wrapped))
	}
	own := bytes.Clone(wrapped)
	if len(own) == aes.BlockSize {
		block.Decrypt(own, own)
	} else {
		unwrapRounds(block.Decrypt, own)
	}
	head, body := own[:8], own[8:]
	size, room := int64(binary.BigEndian.Uint32(head[4:])), int64(len(body))
	right := subtle.ConstantTimeEq(int32(binary.BigEndian.Uint32(head)^kwpPrefix), 0)
	if right != 1 || size > room || size <= room-8 || !isZero(body[size:]) {
		clear(own)
		return nil, fmt.Errorf("%w: it is not wrapped under the AES key that came with it", ErrInvalidCiphertext)
	}
	return body[:size], nil
}

// wrapKWP is AES key wrap with padding (RFC 5649, section 4.1) of at least 9 bytes.
func wrapKWP(key, text []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32(make([]byte, 0, 8+len(text)+7), kwpPrefix)
	out = append(binary.BigEndian.AppendUint32(out, uint32(len(text))), text...)
	out = append(out, make([]byte, -len(text)&7)...)
	wrapRounds(block.Encrypt, out)
	return out, nil
}

// wrapRounds is the wrapping process of RFC 3394, section 2.2.1, in place.
func wrapRounds(encrypt func(dst, src []byte), own []byte) {
	n := len(own)/8 - 1
	b := make([]byte, 16)
	defer clear(b)
	copy(b, own[:8])
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(b[8:], own[8*i:])
			encrypt(b, b)
			copy(own[8*i:8*i+8], b[8:])
			binary.BigEndian.PutUint64(b, binary.BigEndian.Uint64(b)^uint64(n*j+i))
		}
	}
	copy(own, b[:8])
}

// unwrapRounds is the inverse of the wrapping process of RFC 3394, section 2.2.2,
// in place.
func unwrapRounds(decrypt func(dst, src []byte), own []byte) {
	n := len(own)/8 - 1
	b := make([]byte, 16)
	defer clear(b)
	copy(b, own[:8])
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			counter := binary.BigEndian.Uint64(b) ^ uint64(n*j+i)
			binary.BigEndian.PutUint64(b, counter)
			copy(b[8:], own[8*i:])
			decrypt(b, b)
			copy(own[8*i:8*i+8], b[8:])
		}
	}
	copy(own, b[:8])
}
