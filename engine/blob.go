package engine

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/hyok-kms/hyok/keystore"
)

// A ciphertext blob is what Encrypt returns for a symmetric key. It names its key
// and key material, so that Decrypt needs neither:
//
//	format    1 byte: 1, or 2 with an outer layer
//	form      1 byte of the key id: 0 for a UUID, 1 for mrk-
//	key id    16 bytes
//	material  32 bytes: its KeyMaterialId
//
// and for format 1 what AES-GCM made of the plaintext:
//
//	n         1 byte: 12 or 16
//	IV        n bytes
//	text      as long as the plaintext
//	tag       16 bytes
//
// Format 2 has the outer layer, which an external key store proxy made of all
// this from n on:
//
//	n         1 byte: 12 or 16
//	IV        n bytes
//	m         1 byte: 0 to 20
//	metadata  m bytes of ciphertext metadata
//	text      as long as the inner layer
//	tag       16 bytes
//
// The head, all before n, and the encryption context are authenticated with the
// text. The blob names no Region: every related key of a multi-Region key opens
// it.
type blob struct {
	format   byte
	keyID    string
	material string // KeyMaterialId
	body     []byte // from n on
}

const (
	formatSingle = 1
	formatDouble = 2
	headSize     = 2 + 16 + 32
	gcmTagSize   = 16
)

// appendHead appends the head of a blob.
func appendHead(to []byte, format byte, keyID, materialID string) []byte {
	form := byte(0)
	digits, multi := strings.CutPrefix(keyID, multiRegionPrefix)
	if multi {
		form = 1
	}
	to = append(to, format, form)
	// Both are hexadecimal, as they were made here.
	for i := 0; i < len(digits); i++ {
		if digits[i] == '-' {
			continue
		}
		to = append(to, hexDigit(digits[i])<<4|hexDigit(digits[i+1]))
		i++
	}
	to, _ = hex.AppendDecode(to, []byte(materialID))
	return to
}

func hexDigit(ch byte) byte {
	if ch <= '9' {
		return ch - '0'
	}
	return ch - 'a' + 10
}

// parseBlob reads the head of a blob; ok is false if it is none.
func parseBlob(b []byte) (p blob, ok bool) {
	if len(b) <= headSize || b[0] != formatSingle && b[0] != formatDouble || b[1] > 1 {
		return p, false
	}
	return blob{format: b[0], keyID: keyIDOf(b[1], b[2:18]), material: hex.EncodeToString(b[18:headSize]), body: b[headSize:]}, true
}

// keyIDOf returns a key id of a form with these 16 bytes.
func keyIDOf(form byte, b []byte) string {
	var room [36]byte // the length of either form
	id := room[:0]
	if form == 1 {
		return string(hex.AppendEncode(append(id, multiRegionPrefix...), b))
	}
	for i, part := range [][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
		if i > 0 {
			id = append(id, '-')
		}
		id = hex.AppendEncode(id, part)
	}
	return string(id)
}

// appendSealed appends an inner layer.
func appendSealed(to []byte, s keystore.Sealed) []byte {
	to = append(append(to, byte(len(s.IV))), s.IV...)
	return append(append(to, s.Ciphertext...), s.Tag...)
}

// parseSealed reads an inner layer.
func parseSealed(b []byte) (s keystore.Sealed, ok bool) {
	iv, rest, ok := cutIV(b)
	if !ok || len(rest) < gcmTagSize {
		return s, false
	}
	n := len(rest) - gcmTagSize
	return keystore.Sealed{IV: iv, Ciphertext: rest[:n], Tag: rest[n:]}, true
}

func cutIV(b []byte) (iv, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != 12 && b[0] != 16 || len(b) <= int(b[0]) {
		return nil, nil, false
	}
	return b[1 : 1+b[0]], b[1+b[0]:], true
}

// outerLayer is what a proxy made of an inner layer.
type outerLayer struct {
	iv, metadata, text, tag []byte
}

func (o outerLayer) appendTo(to []byte) []byte {
	to = append(append(to, byte(len(o.iv))), o.iv...)
	to = append(append(to, byte(len(o.metadata))), o.metadata...)
	return append(append(to, o.text...), o.tag...)
}

func parseOuter(b []byte) (o outerLayer, ok bool) {
	iv, rest, ok := cutIV(b)
	if !ok || len(rest) == 0 {
		return o, false
	}
	m := int(rest[0])
	rest = rest[1:]
	if len(rest) < m+gcmTagSize {
		return o, false
	}
	o.iv, o.metadata, rest = iv, rest[:m], rest[m:]
	n := len(rest) - gcmTagSize
	o.text, o.tag = rest[:n], rest[n:]
	return o, true
}

// additionalData is what AES-GCM authenticates beside the text: the head, and the
// encryption context in the order of its names, each with its length.
func additionalData(head []byte, context map[string]string) []byte {
	if len(context) == 0 {
		return head
	}
	size := len(head)
	names := make([]string, 0, len(context))
	for name, value := range context {
		names = append(names, name)
		size += 8 + len(name) + len(value)
	}
	slices.Sort(names)
	data := append(make([]byte, 0, size), head...)
	for _, name := range names {
		data = appendText(data, name)
		data = appendText(data, context[name])
	}
	return data
}

func appendText(to []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(to, uint32(len(s))), s...)
}
