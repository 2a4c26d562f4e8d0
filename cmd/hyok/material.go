package main

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"unicode"
)

// Forms that key material may have in a file.
const (
	formAuto = "auto"
	formRaw  = "raw"
	formHex  = "hex"
	formPEM  = "pem"
)

const (
	materialSize = 32   // bytes of an AES-256 key
	maxMaterial  = 4096 // bytes of a file that holds one
)

// readMaterial reads a 32-byte key in one of the forms. The caller wipes it; no
// error repeats any of it.
func readMaterial(in io.Reader, form string) ([]byte, error) {
	text := make([]byte, maxMaterial+1)
	defer clear(text)
	n, err := io.ReadFull(in, text)
	switch {
	case err == nil:
		return nil, fmt.Errorf("it is longer than %d bytes, so it is no AES-256 key", maxMaterial)
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	case n == 0:
		return nil, errors.New("it is empty")
	}
	return parseMaterial(text[:n], form)
}

func parseMaterial(text []byte, form string) ([]byte, error) {
	if form == formAuto {
		var err error
		if form, err = detectForm(text); err != nil {
			return nil, err
		}
	}
	switch form {
	case formRaw:
		if len(text) != materialSize {
			return nil, fmt.Errorf("it has %d raw bytes: AES-256 takes %d, without a line end", len(text), materialSize)
		}
		return bytes.Clone(text), nil
	case formHex:
		return parseHex(text)
	}
	return parsePEM(text)
}

// detectForm tells the forms apart without a guess. The other forms are longer
// than 32 bytes; but 32 characters of text are a 128-bit key in hex or a
// password far likelier than raw bytes that happen to be printable.
func detectForm(text []byte) (string, error) {
	switch {
	case bytes.Contains(text, []byte("-----BEGIN ")):
		return formPEM, nil
	case len(text) == materialSize && !isText(text):
		return formRaw, nil
	case len(text) == materialSize:
		return "", errors.New("it is 32 characters of text, which is no AES-256 key in hex; if these are the raw bytes indeed, say --format raw")
	case isText(text):
		return formHex, nil
	}
	return "", fmt.Errorf("it has %d bytes, which are neither %d raw bytes nor text", len(text), materialSize)
}

func isText(text []byte) bool {
	return !bytes.ContainsFunc(text, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsPrint(r) && !unicode.IsSpace(r) })
}

// parseHex decodes 64 hex digits with white space anywhere.
func parseHex(text []byte) ([]byte, error) {
	digits := make([]byte, 0, len(text))
	defer func() { clear(digits) }()
	for _, ch := range text {
		switch {
		case ch == ' ' || ch == '\t' || ch == '\r' || ch == '\n':
		case ch >= '0' && ch <= '9' || ch >= 'a' && ch <= 'f' || ch >= 'A' && ch <= 'F':
			digits = append(digits, ch)
		default:
			return nil, errors.New("it has a character that is neither a hex digit nor white space")
		}
	}
	if len(digits) != 2*materialSize {
		return nil, fmt.Errorf("it has %d hex digits: AES-256 takes %d", len(digits), 2*materialSize)
	}
	material := make([]byte, materialSize)
	_, err := hex.Decode(material, digits)
	return material, err
}

// parsePEM decodes one block of Base64 between BEGIN and END lines of any label.
func parsePEM(text []byte) ([]byte, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it has no whole block of Base64 between a BEGIN and an END line")
	}
	defer clear(block.Bytes)
	switch {
	case len(block.Headers) > 0:
		return nil, errors.New("its block has headers, as encrypted ones do: decrypt it first")
	case len(bytes.TrimSpace(rest)) > 0 || bytes.Count(text, []byte("-----BEGIN ")) != 1:
		return nil, errors.New("it has more than one block, or text behind it")
	case len(block.Bytes) != materialSize:
		return nil, fmt.Errorf("its block holds %d bytes: AES-256 takes %d", len(block.Bytes), materialSize)
	}
	return bytes.Clone(block.Bytes), nil
}
