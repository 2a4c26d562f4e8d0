package xks

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Our ciphertext metadata names the key version that sealed a ciphertext:
//
//	+--------+---------------------------+---------+
//	| 0x01   | key version, big-endian   | 0x68    |
//	| format | 4 bytes, at least 1       | trailer |
//	+--------+---------------------------+---------+
//
// It ends the additional authenticated data that the token is given. The AWS
// sample proxy ends that data with a zero byte, or with the metadata it was
// configured with, which validateSampleMetadata keeps from ending in our
// trailer. So no ciphertext of one kind can be opened as one of the other,
// although both kinds may live under the same key.
const (
	metadataFormat  = 0x01
	metadataTrailer = 0x68
	metadataSize    = 6
)

// appendMetadata appends the ciphertext metadata that names version.
func appendMetadata(dst []byte, version uint32) []byte {
	dst = append(dst, metadataFormat)
	dst = binary.BigEndian.AppendUint32(dst, version)
	return append(dst, metadataTrailer)
}

// parseMetadata returns the key version that our ciphertext metadata names.
// Nothing but what appendMetadata makes of a version from 1 is accepted.
func parseMetadata(metadata []byte) (version uint32, ok bool) {
	if len(metadata) != metadataSize || metadata[0] != metadataFormat || metadata[metadataSize-1] != metadataTrailer {
		return 0, false
	}
	version = binary.BigEndian.Uint32(metadata[1:])
	return version, version != 0
}

// appendTokenAAD appends what the specification (Encrypt, ciphertextMetadata)
// has the external key manager authenticate: both values with their lengths,
// so that neither can be moved into the other.
func appendTokenAAD(dst, aad, metadata []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(aad)))
	dst = append(dst, aad...)
	dst = append(dst, byte(len(metadata)))
	return append(dst, metadata...)
}

// appendSampleAAD appends what the AWS sample proxy authenticates instead: the
// SHA-256 of the additional authenticated data, under the length of the data
// itself. Data that was sent but is empty is hashed too; data that was not
// sent is not.
func appendSampleAAD(dst, aad []byte, aadSent bool, metadata []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(aad)))
	if aadSent {
		digest := sha256.Sum256(aad)
		dst = append(dst, digest[:]...)
	}
	dst = append(dst, byte(len(metadata)))
	return append(dst, metadata...)
}

// resolve returns the key version that a ciphertext with this metadata was
// sealed under and appends to dst the data that was authenticated with it.
// Ciphertext of the sample proxy, with no metadata or with the value that the
// sample was configured with, is of version 1.
func resolve(dst, aad []byte, aadSent bool, metadata, sample []byte) (version uint32, tokenAAD []byte, ok bool) {
	if len(metadata) == 0 || len(sample) > 0 && bytes.Equal(metadata, sample) {
		return 1, appendSampleAAD(dst, aad, aadSent, metadata), true
	}
	version, ok = parseMetadata(metadata)
	if !ok {
		return 0, dst, false
	}
	return version, appendTokenAAD(dst, aad, metadata), true
}

// validateSampleMetadata reports whether a store may declare that an AWS sample
// proxy was configured with this ciphertext metadata.
func validateSampleMetadata(sample []byte) error {
	switch {
	case len(sample) > MaxMetadataSize:
		return fmt.Errorf("sample metadata has %d bytes: ciphertext metadata has at most %d", len(sample), MaxMetadataSize)
	case len(sample) > 0 && sample[len(sample)-1] == metadataTrailer:
		return errors.New("sample metadata ends in 0x68, as ours does: a ciphertext of the sample proxy could then " +
			"authenticate the same bytes as one of ours with other data; re-encrypt those ciphertexts instead")
	}
	return nil
}
