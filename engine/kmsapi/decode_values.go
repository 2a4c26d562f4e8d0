package kmsapi

import (
	"bytes"
	"encoding/base64"
	"math"
	"reflect"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// readKind reads a value that must be of the kind.
func readKind(d *jsontext.Decoder, want jsontext.Kind, wanted string) (jsontext.Value, error) {
	if kind := d.PeekKind(); kind != want {
		return nil, wrongKind(kind, wanted)
	}
	return d.ReadValue()
}

// readText reads a string, or the name of a member. The characters are valid
// until the next call.
func readText(d *jsontext.Decoder) ([]byte, error) {
	v, err := readKind(d, jsontext.KindString, aString)
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1], nil
	}
	return jsontext.AppendUnquote(nil, v)
}

func decodeString(d *jsontext.Decoder, v reflect.Value) error {
	text, err := readText(d)
	v.SetString(string(text))
	return err
}

func decodeStringPointer(d *jsontext.Decoder, v reflect.Value) error {
	text, err := readText(d)
	s := string(text)
	*v.Addr().Interface().(**string) = &s
	return err
}

func decodeBool(d *jsontext.Decoder, v reflect.Value) error {
	kind := d.PeekKind()
	if kind != jsontext.KindTrue && kind != jsontext.KindFalse {
		return wrongKind(kind, aBoolean)
	}
	v.SetBool(kind == jsontext.KindTrue)
	_, err := d.ReadToken()
	return err
}

// decodeInt reads a number, of which AWS cuts off what is behind the point.
func decodeInt(d *jsontext.Decoder, v reflect.Value) error {
	number, err := readKind(d, jsontext.KindNumber, anInteger)
	if err != nil {
		return err
	}
	value, err := strconv.ParseFloat(string(number), 64)
	if value = math.Trunc(value); err != nil || value < math.MinInt32 || value > math.MaxInt32 {
		return wrongKind(jsontext.KindNumber, anInteger)
	}
	v.SetInt(int64(value))
	return nil
}

// maxEpoch is beyond the last second of the year 9999.
const maxEpoch = 253402300800

// decodeTime reads seconds since 1970, to the millisecond.
func decodeTime(d *jsontext.Decoder, v reflect.Value) error {
	number, err := readKind(d, jsontext.KindNumber, aTime)
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseFloat(string(number), 64)
	if err != nil || math.Abs(seconds) >= maxEpoch {
		return wrongKind(jsontext.KindNumber, aTime)
	}
	*v.Addr().Interface().(*time.Time) = time.UnixMilli(int64(math.Round(seconds * 1000))).UTC()
	return nil
}

// decodeBlob reads standard Base64 with padding. It leaves no copy of what may
// be a plaintext but the one in v.
func decodeBlob(d *jsontext.Decoder, v reflect.Value) error {
	value, err := readKind(d, jsontext.KindString, aBlob)
	if err != nil {
		return err
	}
	text := []byte(value[1 : len(value)-1])
	if bytes.IndexByte(text, '\\') >= 0 { // some encoders escape the slash
		unquoted := make([]byte, 0, len(value)) // unquoting never lengthens
		defer func() { clear(unquoted[:cap(unquoted)]) }()
		if text, err = jsontext.AppendUnquote(unquoted, value); err != nil {
			return err
		}
	}
	// Go skips CR and LF.
	if bytes.ContainsAny(text, "\r\n") {
		return errBase64
	}
	blob := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(blob, text)
	v.SetBytes(blob[:n]) // what there is of it will be wiped with the input
	if err != nil {
		return errBase64
	}
	return nil
}

// decodeMap reads an encryption context.
func decodeMap(d *jsontext.Decoder, v reflect.Value) error {
	if err := open(d, jsontext.KindBeginObject, aMap); err != nil {
		return err
	}
	m := make(map[string]string)
	*v.Addr().Interface().(*map[string]string) = m
	for d.PeekKind() != jsontext.KindEndObject {
		text, err := readText(d)
		if err != nil {
			return err
		}
		name := string(text)
		if null, err := skipNull(d); err != nil {
			return err
		} else if null {
			continue
		}
		if text, err = readText(d); err != nil {
			return err
		}
		m[name] = string(text)
	}
	_, err := d.ReadToken()
	return err
}
