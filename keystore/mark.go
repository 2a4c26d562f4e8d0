package keystore

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
)

// mark is what hyok writes into CKA_ID of the keys that it manages:
//
//	"hyok"  4 bytes
//	0x01    format
//	version 4 bytes, big-endian, from 1
//	flags   1 byte; two of its bits count the changes, modulo 4
//	rest    8 random bytes, or the CKA_ID that the key had before
//
// The random bytes tell apart two keys that two processes made as the same
// version at the same time.
type mark struct {
	version  uint32
	disabled bool // hyok key disable
	encrypt  bool // while disabled: CKA_ENCRYPT to give back
	decrypt  bool // while disabled: CKA_DECRYPT to give back
	adopted  bool // the key was not made by hyok; rest is its former CKA_ID
	// changes counts, modulo 4, how often the key was disabled or enabled: of two
	// objects of one key it tells the newer one.
	changes byte
	rest    []byte
}

const (
	markPrefix = "hyok\x01"
	markSize   = len(markPrefix) + 4 + 1

	flagDisabled byte = 1 << (iota - 2)
	flagEncrypt
	flagDecrypt
	flagAdopted

	changesShift = 4
	changesMask  = 3
)

// newMark returns the mark of a key that hyok makes.
func newMark(version uint32) mark {
	m := mark{version: version, rest: make([]byte, 8)}
	_, _ = rand.Read(m.rest) // never fails
	return m
}

// parseMark returns the mark in a CKA_ID, if it is one.
func parseMark(id []byte) (mark, bool) {
	if len(id) < markSize || !bytes.HasPrefix(id, []byte(markPrefix)) {
		return mark{}, false
	}
	version := binary.BigEndian.Uint32(id[len(markPrefix):])
	flags := id[markSize-1]
	if version == 0 || flags&^(flagDisabled|flagEncrypt|flagDecrypt|flagAdopted|changesMask<<changesShift) != 0 {
		return mark{}, false
	}
	return mark{
		version:  version,
		disabled: flags&flagDisabled != 0,
		encrypt:  flags&flagEncrypt != 0,
		decrypt:  flags&flagDecrypt != 0,
		adopted:  flags&flagAdopted != 0,
		changes:  flags >> changesShift & changesMask,
		rest:     bytes.Clone(id[markSize:]),
	}, true
}

// bytes returns the CKA_ID that carries m.
func (m mark) bytes() []byte {
	flags := m.changes & changesMask << changesShift
	for _, f := range []struct {
		set bool
		bit byte
	}{{m.disabled, flagDisabled}, {m.encrypt, flagEncrypt}, {m.decrypt, flagDecrypt}, {m.adopted, flagAdopted}} {
		if f.set {
			flags |= f.bit
		}
	}
	b := binary.BigEndian.AppendUint32([]byte(markPrefix), m.version)
	return append(append(b, flags), m.rest...)
}
