package sigv4

// Error says why a request is not authentic. Each is a constant sentence of
// printable ASCII that quotes nothing of the request, so it may be answered to
// the client as it is.
type Error string

// Error returns the sentence.
func (e Error) Error() string { return string(e) }

// Fault is what kind of thing is wrong. Services that answer each kind in
// another way need no more than that.
type Fault int

// The kinds of errors.
const (
	Incomplete   Fault = iota // what a signature needs is missing or malformed
	WrongService              // the credential is for another service
	WrongDay                  // the credential is for another day than the request
	Skewed                    // the date is too far from the present time
	Mismatch                  // the signature or a hash is not that of the request
)

// Fault returns the kind of the error.
func (e Error) Fault() Fault {
	switch e {
	case errService:
		return WrongService
	case errScopeDate:
		return WrongDay
	case errSkew:
		return Skewed
	case errContentSHA256, errMismatch:
		return Mismatch
	}
	return Incomplete
}

// All that can be wrong with the signature of a request. They are not exported
// one by one: a caller needs at most their kind.
const (
	errHeaderCount   Error = "the request must have exactly one Authorization header"
	errAlgorithm     Error = "the algorithm of the Authorization header must be AWS4-HMAC-SHA256"
	errParts         Error = "the Authorization header must consist of one Credential, one SignedHeaders and one Signature"
	errCredential    Error = "Credential must have the form id/date/region/service/aws4_request"
	errService       Error = "Credential names another service"
	errTerminator    Error = "Credential must end with aws4_request"
	errSignedHeaders Error = "SignedHeaders must be names in lower case, sorted, each once"
	errRequired      Error = "SignedHeaders must contain host and x-amz-date"
	errUnsigned      Error = "X-Amz-Target, and any other X-Amz header that the request has, must be listed in SignedHeaders"
	errAbsentHeader  Error = "a header listed in SignedHeaders is not in the request"
	errSignatureForm Error = "Signature must be 64 lower-case hexadecimal digits"
	errDate          Error = "the request must have exactly one X-Amz-Date header of the form 20060102T150405Z"
	errScopeDate     Error = "the date of Credential must be the day of X-Amz-Date"
	errSkew          Error = "X-Amz-Date is too far from the present time"
	errPath          Error = "the path must be absolute and without empty, '.' and '..' segments"
	errQuery         Error = "the query string is malformed"
	errContentSHA256 Error = "X-Amz-Content-Sha256 is not the hash of the body"
	errMismatch      Error = "the signature does not match"
)
