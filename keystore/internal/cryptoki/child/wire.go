package child

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
)

// A message is its length in four bytes, and then numbers, as unsigned varints, and
// texts, each after its length. The parent and its child are one binary: there is
// no version.
const (
	lengthSize = 4
	maxMessage = 16 << 20 // bytes; a search may find a million objects
)

// op names a method of cryptoki.Module.
type op byte

const (
	opLoad op = iota + 1 // load the module: its path, and where the PIN is
	opInitialize
	opFinalize
	opGetSlotList
	opGetTokenInfo
	opInitToken
	opInitPIN
	opOpenSession
	opCloseSession
	opGetSessionInfo
	opLogin        // with a PIN
	opLoginByChild // with the PIN that the child reads
	opLogout
	opFindObjects
	opGetAttributeValue
	opSetAttributeValue
	opCreateObject
	opCopyObject
	opDestroyObject
	opGenerateKey
	opGenerateKeyPair
	opGenerateRandom
	opWrapKey
	opUnwrapKey
	opDeriveKey
	opEncrypt
	opDecrypt
	opSign
)

// request is a call of a method with its arguments.
type request struct {
	op        op
	numbers   [3]uint // handles, slots, flags and lengths in the order of the method
	mechanism cryptoki.Mechanism
	data      []byte // what is worked on, or a PIN, or a path
	text      []byte // a label, or where the PIN is
	template  cryptoki.Template
	private   cryptoki.Template // of GenerateKeyPair
}

// reply is what a method returned. Where it returned an error, there is nothing
// else.
type reply struct {
	failed   failure
	numbers  []uint
	out, iv  []byte
	template cryptoki.Template
	texts    []string
}

// failure is an error on its way.
type failure struct {
	kind failureKind
	code uint   // what the module answered
	call string // to which function, where a method stands for several
	text string // of an error that is no answer of the module
}

type failureKind byte

const (
	succeeded failureKind = iota
	answered              // by the module
	otherwise
)

// newFailure takes an error apart. It holds no secret, as no error does.
func newFailure(err error) failure {
	var part *cryptoki.CallError
	var code pkcs11.Error
	switch {
	case err == nil:
		return failure{}
	case errors.As(err, &part) && errors.As(part.Err, &code):
		return failure{kind: answered, code: uint(code), call: part.Call}
	case errors.As(err, &code):
		return failure{kind: answered, code: uint(code)}
	}
	return failure{kind: otherwise, text: err.Error()}
}

// error is the reverse of newFailure.
func (f failure) error() error {
	switch {
	case f.kind == succeeded:
		return nil
	case f.kind == otherwise:
		return errors.New(f.text)
	case f.call != "":
		return &cryptoki.CallError{Call: f.call, Err: pkcs11.Error(f.code)}
	}
	return pkcs11.Error(f.code)
}

// appendTo appends q.
func (q *request) appendTo(b []byte) []byte {
	b = append(b, byte(q.op))
	for _, n := range q.numbers {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = appendMechanism(b, q.mechanism)
	b = appendBytes(b, q.data)
	b = appendBytes(b, q.text)
	b = appendTemplate(b, q.template)
	return appendTemplate(b, q.private)
}

// parseRequest parses a message without its length. The request refers to its bytes.
func parseRequest(message []byte) (q request, err error) {
	p := parser{rest: message}
	q.op = op(p.byte())
	for i := range q.numbers {
		q.numbers[i] = uint(p.number())
	}
	q.mechanism = p.mechanism()
	q.data = p.bytes()
	q.text = p.bytes()
	q.template = p.template()
	q.private = p.template()
	return q, p.end("request")
}

// appendTo appends r.
func (r *reply) appendTo(b []byte) []byte {
	b = append(b, byte(r.failed.kind))
	if r.failed.kind != succeeded {
		b = binary.AppendUvarint(b, uint64(r.failed.code))
		b = appendString(b, r.failed.call)
		return appendString(b, r.failed.text)
	}
	b = binary.AppendUvarint(b, uint64(len(r.numbers)))
	for _, n := range r.numbers {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = appendBytes(b, r.out)
	b = appendBytes(b, r.iv)
	b = appendTemplate(b, r.template)
	b = binary.AppendUvarint(b, uint64(len(r.texts)))
	for _, s := range r.texts {
		b = appendString(b, s)
	}
	return b
}

// parseReply parses a message without its length. The slices of bytes in the reply refer to it.
func parseReply(message []byte) (r reply, err error) {
	p := parser{rest: message}
	if r.failed.kind = failureKind(p.byte()); r.failed.kind != succeeded {
		p.bad = p.bad || r.failed.kind > otherwise
		r.failed.code = uint(p.number())
		r.failed.call, r.failed.text = p.string(), p.string()
		return r, p.end("reply")
	}
	if n := p.count(); n > 0 {
		r.numbers = make([]uint, n)
	}
	for i := range r.numbers {
		r.numbers[i] = uint(p.number())
	}
	r.out = p.bytes()
	r.iv = p.bytes()
	r.template = p.template()
	for range p.count() {
		r.texts = append(r.texts, p.string())
	}
	return r, p.end("reply")
}

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

// count returns a number of things that take one byte each at least.
func (p *parser) count() int {
	n := p.number()
	if n > uint64(len(p.rest)) {
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
	n := p.count()
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
