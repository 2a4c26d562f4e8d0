package kmsapi

import "github.com/go-json-experiment/json/jsontext"

// serializationError is the message of a SerializationException. It quotes
// nothing of the body, and is empty, as AWS's is, of what is no JSON.
type serializationError string

func (e serializationError) Error() string { return "SerializationException: " + string(e) }

const (
	errSyntax    serializationError = ""
	errStructure serializationError = "Start of structure or map found where not expected."
	errList      serializationError = "Start of list found where not expected"
	errBase64    serializationError = "A blob must be standard Base64 with padding"
)

// What AWS says it expected where a scalar was found: of a structure, a list
// and a map that alone, of scalars that the one found is not convertible to
// them.
const (
	aStructure = "Expected null"
	aList      = "Expected list or null"
	aMap       = "Expected map or null"
	aString    = " can not be converted to a String"
	aBoolean   = " can not be converted to a Boolean"
	anInteger  = " can not be converted to an Integer"
	aBlob      = " can not be converted to a Blob"
	aTime      = " can not be converted to milliseconds since epoch"
)

// wrongKind says, as AWS does, that a value of this kind was found where the
// wanted thing should be.
func wrongKind(found jsontext.Kind, wanted string) serializationError {
	var value string
	switch found {
	case jsontext.KindBeginObject:
		return errStructure
	case jsontext.KindBeginArray:
		return errList
	case jsontext.KindString:
		value = "STRING_VALUE"
	case jsontext.KindNumber:
		value = "NUMBER_VALUE"
	case jsontext.KindTrue:
		value = "TRUE_VALUE"
	case jsontext.KindFalse:
		value = "FALSE_VALUE"
	default:
		return errSyntax
	}
	if wanted[0] != ' ' {
		return serializationError(wanted)
	}
	return serializationError(value + wanted)
}
