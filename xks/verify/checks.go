package verify

import (
	"context"

	"github.com/hyok-kms/hyok/xks"
)

// The headings of the specification that checks of several operations cite.
const (
	secContentType    = "API content type"
	secOperations     = "API operations"
	secErrors         = "Error codes"
	secAuthentication = "Authentication"
	secSigV4          = "App. A"
	secMetadata       = "App. B"
	secCDIV           = "App. C"
)

// accepts is a check that the operation succeeds with these edits.
func accepts(id, section, title string, level Level, op operation, edits ...edit) Check {
	return Check{ID: id, Section: section, Title: title, Level: level,
		run: func(ctx context.Context, p *prober) error {
			c, err := p.call(ctx, op, edits...)
			if err != nil {
				return err
			}
			return p.send(ctx, c).accepted()
		}}
}

// refuses is a check that the operation with these edits fails with one of
// the named errors.
func refuses(id, section, title string, level Level, op operation, want refusal, edits ...edit) Check {
	return Check{ID: id, Section: section, Title: title, Level: level,
		run: func(ctx context.Context, p *prober) error {
			c, err := p.call(ctx, op, edits...)
			if err != nil {
				return err
			}
			return p.send(ctx, c).refused(want.names()...)
		}}
}

// should weakens a check to level SHOULD.
func should(c Check) Check {
	c.Level = Should
	return c
}

// refusal is what may be answered to a wrong request. Where it has several
// names, the specification, or the test client of AWS and the sample proxy
// together, leave open which.
type refusal int

const (
	invalid refusal = iota
	unauthenticated
	wrongPath
	noKey
	noSuchKeyForm
	unsupported
	badCiphertext
	badInput
	wrongUsage
	wrongState
)

func (r refusal) names() []xks.ErrorName {
	switch r {
	case invalid:
		return []xks.ErrorName{xks.ValidationException}
	case unauthenticated:
		return []xks.ErrorName{xks.AuthenticationFailedException}
	case wrongPath:
		return []xks.ErrorName{xks.InvalidURIPathException}
	case noKey:
		return []xks.ErrorName{xks.KeyNotFoundException}
	case noSuchKeyForm:
		return []xks.ErrorName{xks.KeyNotFoundException, xks.InvalidURIPathException, xks.ValidationException}
	case unsupported:
		return []xks.ErrorName{xks.ValidationException, xks.UnsupportedOperationException}
	case badCiphertext:
		return []xks.ErrorName{xks.InvalidCiphertextException}
	case badInput:
		return []xks.ErrorName{xks.InvalidCiphertextException, xks.ValidationException}
	case wrongUsage:
		return []xks.ErrorName{xks.InvalidKeyUsageException}
	default:
		return []xks.ErrorName{xks.InvalidStateException}
	}
}

// unknownKey is a legal external key id that no store has.
const unknownKey = "hyok-verify-no-such-key-4f1d9a6c"
