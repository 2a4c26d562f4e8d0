package child

import (
	"encoding/binary"
	"errors"

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
	opLoad op = iota + 1 // load the module: its path, a zero and its parameters; and where the PIN is
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
	opDigestPIN    // that the child reads
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
	opGetMechanismList
	opGetMechanismInfo
)

// request is a call of a method with its arguments.
type request struct {
	op        op
	numbers   [3]uint // handles, slots, flags and lengths in the order of the method
	mechanism cryptoki.Mechanism
	data      []byte // what is worked on, or a PIN, or a path
	text      []byte // a label, or where the PIN is, or the salt of its digest
	template  cryptoki.Template
	private   cryptoki.Template // of GenerateKeyPair
}

// reply is what a method returned. Where it returned an error, there is nothing
// else; a PIN that is refused with its digest is none, but a number, the code.
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
	if n := p.count(maxMessage); n > 0 {
		r.numbers = make([]uint, n)
	}
	for i := range r.numbers {
		r.numbers[i] = uint(p.number())
	}
	r.out = p.bytes()
	r.iv = p.bytes()
	r.template = p.template()
	for range p.count(maxTexts) {
		r.texts = append(r.texts, p.string())
	}
	return r, p.end("reply")
}
