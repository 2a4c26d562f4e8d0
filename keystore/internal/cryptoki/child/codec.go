package child

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// The parameters that a mechanism can have.
const (
	noParameters byte = iota
	gcmParameters
	oaepParameters
	pssParameters
	ecdhParameters
)

func appendMechanism(b []byte, m cryptoki.Mechanism) []byte {
	b = binary.AppendUvarint(b, uint64(m.Type))
	switch {
	case m.GCM != nil:
		b = append(b, gcmParameters)
		b = appendBytes(b, m.GCM.IV)
		return appendBytes(b, m.GCM.AAD)
	case m.OAEP != nil:
		b = append(b, oaepParameters)
		b = binary.AppendUvarint(b, uint64(m.OAEP.Hash))
		return binary.AppendUvarint(b, uint64(m.OAEP.MGF))
	case m.PSS != nil:
		b = append(b, pssParameters)
		b = binary.AppendUvarint(b, uint64(m.PSS.Hash))
		b = binary.AppendUvarint(b, uint64(m.PSS.MGF))
		return binary.AppendUvarint(b, uint64(m.PSS.Salt))
	case m.ECDH != nil:
		b = append(b, ecdhParameters)
		return appendBytes(b, m.ECDH.Public)
	}
	return append(b, noParameters)
}

func appendTemplate(b []byte, t cryptoki.Template) []byte {
	b = binary.AppendUvarint(b, uint64(len(t)))
	for _, a := range t {
		b = binary.AppendUvarint(b, uint64(a.Type))
		b = appendBytes(b, a.Value)
	}
	return b
}

// appendBytes keeps nil apart from what is empty.
func appendBytes(b, value []byte) []byte {
	if value == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(value))+1)
	return append(b, value...)
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s))+1)
	return append(b, s...)
}

var errMalformed = errors.New("malformed message")

// parser takes a packet apart. Once it is bad, all that follows is empty.
type parser struct {
	rest []byte
	bad  bool
}

func (p *parser) byte() byte {
	if p.bad || len(p.rest) == 0 {
		p.bad = true
		return 0
	}
	b := p.rest[0]
	p.rest = p.rest[1:]
	return b
}

func (p *parser) number() uint64 {
	n, size := binary.Uvarint(p.rest)
	if p.bad || size <= 0 {
		p.bad = true
		return 0
	}
	p.rest = p.rest[size:]
	return n
}

// Most attributes and texts of a message. Unlike handles, they take more memory
// than the message.
const (
	maxAttributes = 256
	maxTexts      = 16
)

// count returns a number of things, at most so many, that take one byte each at
// least.
func (p *parser) count(most int) int {
	n := p.number()
	if n > uint64(min(most, len(p.rest))) {
		p.bad = true
		return 0
	}
	return int(n)
}

func (p *parser) bytes() []byte {
	n := p.number()
	if n == 0 {
		return nil
	}
	if n--; n > uint64(len(p.rest)) {
		p.bad = true
		return nil
	}
	value := p.rest[:n:n]
	p.rest = p.rest[n:]
	return value
}

func (p *parser) string() string { return string(p.bytes()) }

func (p *parser) template() cryptoki.Template {
	n := p.count(maxAttributes)
	if n == 0 {
		return nil
	}
	attributes, t := make([]pkcs11.Attribute, n), make(cryptoki.Template, n)
	for i := range attributes {
		attributes[i] = pkcs11.Attribute{Type: uint(p.number()), Value: p.bytes()}
		t[i] = &attributes[i]
	}
	return t
}

func (p *parser) mechanism() cryptoki.Mechanism {
	m := cryptoki.Mechanism{Type: uint(p.number())}
	switch p.byte() {
	case noParameters:
	case gcmParameters:
		m.GCM = &cryptoki.GCM{IV: p.bytes(), AAD: p.bytes()}
	case oaepParameters:
		m.OAEP = &cryptoki.OAEP{Hash: uint(p.number()), MGF: uint(p.number())}
	case pssParameters:
		m.PSS = &cryptoki.PSS{Hash: uint(p.number()), MGF: uint(p.number()), Salt: uint(p.number())}
	case ecdhParameters:
		m.ECDH = &cryptoki.ECDH{Public: p.bytes()}
	default:
		p.bad = true
	}
	return m
}

func (p *parser) end(what string) error {
	if p.bad || len(p.rest) > 0 {
		return fmt.Errorf("%w: no %s", errMalformed, what)
	}
	return nil
}
