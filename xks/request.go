package xks

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The documented maxima of this proxy, in bytes before Base64 encoding. A
// larger value is an UnsupportedOperationException.
const (
	MaxText = 8192  // plaintext and ciphertext
	MaxAAD  = 16384 // additionalAuthenticatedData
)

// members is the body of any request. The values stay as they were sent: no
// plaintext becomes a string, which could not be wiped, and what is only
// logged is only decoded if it is.
type members struct {
	RequestMetadata struct {
		PrincipalARN jsontext.Value `json:"awsPrincipalArn"`
		SourceVPC    jsontext.Value `json:"awsSourceVpc"`
		SourceVPCE   jsontext.Value `json:"awsSourceVpce"`
		KeyARN       jsontext.Value `json:"kmsKeyArn"`
		Operation    jsontext.Value `json:"kmsOperation"`
		RequestID    jsontext.Value `json:"kmsRequestId"`
		ViaService   jsontext.Value `json:"kmsViaService"`
	} `json:"requestMetadata"`
	AAD                jsontext.Value `json:"additionalAuthenticatedData"`
	Algorithm          jsontext.Value `json:"encryptionAlgorithm"`
	Plaintext          jsontext.Value `json:"plaintext"`
	CDIVAlgorithm      jsontext.Value `json:"ciphertextDataIntegrityValueAlgorithm"`
	Ciphertext         jsontext.Value `json:"ciphertext"`
	CiphertextMetadata jsontext.Value `json:"ciphertextMetadata"`
	IV                 jsontext.Value `json:"initializationVector"`
	Tag                jsontext.Value `json:"authenticationTag"`
}

// reset makes every member absent and wipes the one that may be secret.
func (m *members) reset() {
	m.Plaintext = wiped(m.Plaintext)
	for _, v := range []*jsontext.Value{
		&m.RequestMetadata.PrincipalARN, &m.RequestMetadata.SourceVPC, &m.RequestMetadata.SourceVPCE,
		&m.RequestMetadata.KeyARN, &m.RequestMetadata.Operation, &m.RequestMetadata.RequestID, &m.RequestMetadata.ViaService,
		&m.AAD, &m.Algorithm, &m.Plaintext, &m.CDIVAlgorithm, &m.Ciphertext, &m.CiphertextMetadata, &m.IV, &m.Tag,
	} {
		if *v = (*v)[:0]; cap(*v) > maxKept {
			*v = nil
		}
	}
}

// parse reads the body and checks the members that are not specific to one
// operation.
func (c *call) parse() *Error {
	if json.Unmarshal(c.body, &c.in) != nil {
		// The error may quote the body.
		return refuse(ValidationException, "The request body must be one JSON object in UTF-8 without duplicate names, "+
			"and its requestMetadata must be another.")
	}
	m := &c.in.RequestMetadata
	crypto, health := c.route.op == opEncrypt || c.route.op == opDecrypt, c.route.op == opHealth
	for _, member := range []struct {
		name     string
		value    jsontext.Value
		required bool
	}{
		{"requestMetadata.kmsRequestId", m.RequestID, true},
		{"requestMetadata.kmsOperation", m.Operation, true},
		{"requestMetadata.awsPrincipalArn", m.PrincipalARN, !health},
		{"requestMetadata.kmsKeyArn", m.KeyARN, crypto},
		{"requestMetadata.awsSourceVpc", m.SourceVPC, false},
		{"requestMetadata.awsSourceVpce", m.SourceVPCE, false},
		{"requestMetadata.kmsViaService", m.ViaService, false},
		{"encryptionAlgorithm", c.in.Algorithm, crypto},
	} {
		if err := checkString(member.name, member.value, member.required); err != nil {
			return err
		}
	}
	if crypto && !isString(c.in.Algorithm, AlgorithmAESGCM) {
		return refuse(ValidationException, "encryptionAlgorithm must be %s.", AlgorithmAESGCM)
	}
	return nil
}

// checkString refuses a value that is no string, and a required one that is
// missing or empty.
func checkString(name string, v jsontext.Value, required bool) *Error {
	switch {
	case !present(v) && !required:
		return nil
	case !present(v):
		return refuse(ValidationException, "%s is missing: send it.", name)
	case v[0] != '"':
		return refuse(ValidationException, "%s must be a string.", name)
	case required && len(v) == len(`""`):
		return refuse(ValidationException, "%s is empty: send its value.", name)
	}
	return nil
}

// present reports whether the member was sent. null counts as not sent.
func present(v jsontext.Value) bool { return len(v) > 0 && v[0] != 'n' }

// isString reports whether v is the string want, which needs no escapes.
func isString(v jsontext.Value, want string) bool {
	if bytes.IndexByte(v, '\\') < 0 {
		return len(v) == len(want)+2 && string(v[1:len(v)-1]) == want
	}
	text, err := jsontext.AppendUnquote(nil, v)
	return err == nil && string(text) == want
}

// text returns the characters of the string v. The result is valid until the
// next call and is wiped with the request.
func (c *call) text(v jsontext.Value) ([]byte, bool) {
	if len(v) < 2 || v[0] != '"' {
		return nil, false
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1], true
	}
	// Unquoting never lengthens, so this never leaves a copy behind.
	c.scratch = slices.Grow(c.scratch[:0], len(v))
	text, err := jsontext.AppendUnquote(c.scratch, v)
	if err != nil {
		return nil, false
	}
	c.scratch = text
	return text, true
}

var (
	errMalformed = errors.New("not strict standard Base64")
	errTooLong   = errors.New("longer than this proxy accepts")
)

// decode decodes the Base64 string v to dst[:0], which grows to what is needed,
// up to limit bytes. A member that was not sent is empty.
func (c *call) decode(dst []byte, v jsontext.Value, limit int) ([]byte, error) {
	dst = dst[:0]
	if !present(v) {
		return dst, nil
	}
	text, ok := c.text(v)
	// Go skips CR and LF even when strict.
	if !ok || bytes.ContainsAny(text, "\r\n") {
		return dst, errMalformed
	}
	if len(text) > base64.StdEncoding.EncodedLen(limit) {
		return dst, errTooLong
	}
	dst = slices.Grow(dst, c.base64.DecodedLen(len(text)))
	n, err := c.base64.Decode(dst[:cap(dst)], text)
	if err != nil {
		return dst, errMalformed
	}
	if n > limit {
		return dst[:n], errTooLong
	}
	return dst[:n], nil
}

// decodeAAD decodes the additional authenticated data of either operation.
func (c *call) decodeAAD() (err *Error) {
	c.aad, err = c.decodeParameter("additionalAuthenticatedData", c.aad, c.in.AAD, MaxAAD)
	return err
}

// decodeParameter is decode with the answers that most members have for what is
// wrong with them.
func (c *call) decodeParameter(name string, dst []byte, v jsontext.Value, limit int) ([]byte, *Error) {
	dst, err := c.decode(dst, v, limit)
	switch err {
	case nil:
		return dst, nil
	case errTooLong:
		return dst, tooLarge(name, limit)
	}
	return dst, refuse(ValidationException, "%s must be a string of standard Base64 with padding.", name)
}

func tooLarge(name string, limit int) *Error {
	return refuse(UnsupportedOperationException, "%s is too large: this proxy accepts up to %d bytes.", name, limit)
}

// refuse makes an error that is the peer's to mend.
func refuse(name ErrorName, format string, args ...any) *Error {
	return &Error{Name: name, Message: fmt.Sprintf(format, args...)}
}
