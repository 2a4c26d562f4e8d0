package kmsapi

import (
	"bytes"
	"encoding/base64"
	"errors"
	"math"
	"reflect"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// decoder turns request bodies into the SDK's inputs, whose Go names are the
// names on the wire. It is safe for concurrent use.
type decoder struct{ options json.Options }

func newDecoder() decoder {
	return decoder{json.WithUnmarshalers(json.JoinUnmarshalers(
		json.UnmarshalFromFunc(decodeBlob),
		json.UnmarshalFromFunc(decodeTime),
	))}
}

// decode reads the members of body into the input that in points to. An error
// is always a serializationError, which quotes nothing of the body.
func (d decoder) decode(body []byte, in any) error {
	if len(body) == 0 {
		return nil // no members
	}
	err := json.Unmarshal(body, in, d.options)
	if err == nil {
		return nil
	}
	var own serializationError
	if errors.As(err, &own) {
		return own
	}
	var wrong *json.SemanticError
	if errors.As(err, &wrong) && wrong.GoType != nil {
		return wrongType(wrong.JSONKind, wrong.GoType)
	}
	return serializationError("") // AWS says no more of what is no JSON
}

// serializationError is the message of a SerializationException.
type serializationError string

func (e serializationError) Error() string { return "SerializationException: " + string(e) }

// wrongType says, as AWS does, that a value of this kind was found where a
// member of this type should be.
func wrongType(found jsontext.Kind, want reflect.Type) serializationError {
	switch found {
	case jsontext.KindBeginObject:
		return "Start of structure or map found where not expected."
	case jsontext.KindBeginArray:
		return "Start of list found where not expected"
	}
	switch want.Kind() {
	case reflect.Slice:
		return "Expected list or null"
	case reflect.Map:
		return "Expected map or null"
	case reflect.Bool:
		return notConvertible(found, "a Boolean")
	case reflect.Int32:
		return notConvertible(found, "an Integer")
	case reflect.String:
		return notConvertible(found, "a String")
	}
	return "Expected null"
}

func notConvertible(found jsontext.Kind, to string) serializationError {
	var value string
	switch found {
	case jsontext.KindString:
		value = "STRING_VALUE"
	case jsontext.KindNumber:
		value = "NUMBER_VALUE"
	case jsontext.KindTrue:
		value = "TRUE_VALUE"
	case jsontext.KindFalse:
		value = "FALSE_VALUE"
	default:
		return ""
	}
	return serializationError(value + " can not be converted to " + to)
}

// decodeBlob decodes standard Base64 with padding. It leaves no copy of what
// may be a plaintext but the one in to.
func decodeBlob(d *jsontext.Decoder, to *[]byte) error {
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	switch v.Kind() {
	case jsontext.KindString:
	case jsontext.KindNull:
		*to = nil
		return nil
	case jsontext.KindBeginObject, jsontext.KindBeginArray:
		return wrongType(v.Kind(), reflect.TypeFor[string]())
	default:
		return notConvertible(v.Kind(), "a Blob")
	}
	text := []byte(v[1 : len(v)-1])
	if bytes.IndexByte(text, '\\') >= 0 { // some encoders escape the slash
		unquoted := make([]byte, 0, len(v)) // unquoting never lengthens
		defer func() { clear(unquoted[:cap(unquoted)]) }()
		if text, err = jsontext.AppendUnquote(unquoted, v); err != nil {
			return err
		}
	}
	// Go skips CR and LF.
	if bytes.ContainsAny(text, "\r\n") {
		return errBase64
	}
	blob := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(blob, text)
	*to = blob[:n] // what there is of it will be wiped with the input
	if err != nil {
		return errBase64
	}
	return nil
}

const errBase64 = serializationError("A blob must be standard Base64 with padding")

// maxEpoch is beyond the last second of the year 9999.
const maxEpoch = 253402300800

// decodeTime reads seconds since 1970, to the millisecond.
func decodeTime(d *jsontext.Decoder, to *time.Time) error {
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	switch v.Kind() {
	case jsontext.KindNumber:
	case jsontext.KindBeginObject, jsontext.KindBeginArray:
		return wrongType(v.Kind(), reflect.TypeFor[string]())
	default:
		return notConvertible(v.Kind(), "milliseconds since epoch")
	}
	seconds, err := strconv.ParseFloat(string(v), 64)
	if err != nil || math.Abs(seconds) >= maxEpoch {
		return notConvertible(v.Kind(), "milliseconds since epoch")
	}
	*to = time.UnixMilli(int64(math.Round(seconds * 1000))).UTC()
	return nil
}
