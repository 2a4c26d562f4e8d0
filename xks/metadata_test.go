package xks

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

func FuzzMetadata(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 1, 'h'})
	f.Add([]byte{1, 0, 0, 0, 0, 'h'})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		version, ok := parseMetadata(b)
		if ok && !bytes.Equal(appendMetadata(nil, version), b) {
			t.Errorf("%x parses as version %d, whose metadata is another", b, version)
		}
		if len(b) < 4 {
			return
		}
		version = binary.BigEndian.Uint32(b)
		got, ok := parseMetadata(appendMetadata(nil, version))
		if ok != (version != 0) || ok && got != version {
			t.Errorf("version %d became %d, %v", version, got, ok)
		}
	})
}

func TestTokenAAD(t *testing.T) {
	digest := sha256.Sum256([]byte("ab"))
	empty := sha256.Sum256(nil)
	for _, row := range []struct {
		name             string
		aad              []byte
		sent             bool
		metadata, sample []byte
		wantVersion      uint32
		want             []byte
	}{
		{"ours", []byte("ab"), true, []byte{1, 0, 0, 0, 3, 'h'}, nil, 3, []byte("\x00\x02ab\x06\x01\x00\x00\x00\x03h")},
		{"ours without AAD", nil, false, []byte{1, 0, 0, 0, 1, 'h'}, nil, 1, []byte("\x00\x00\x06\x01\x00\x00\x00\x01h")},
		{"sample", []byte("ab"), true, nil, nil, 1, slices.Concat([]byte{0, 2}, digest[:], []byte{0})},
		{"sample without AAD", nil, false, nil, nil, 1, []byte{0, 0, 0}},
		{"sample with empty AAD", nil, true, nil, nil, 1, slices.Concat([]byte{0, 0}, empty[:], []byte{0})},
		{"sample with metadata", []byte("ab"), true, []byte("v=1"), []byte("v=1"), 1, slices.Concat([]byte{0, 2}, digest[:], []byte("\x03v=1"))},
		{"sample with metadata, without AAD", nil, false, []byte("v=1"), []byte("v=1"), 1, []byte("\x00\x00\x03v=1")},
	} {
		t.Run(row.name, func(t *testing.T) {
			version, got, ok := resolve(nil, row.aad, row.sent, row.metadata, row.sample)
			if !ok || version != row.wantVersion || !bytes.Equal(got, row.want) {
				t.Errorf("got %d %x %v, want %d %x", version, got, ok, row.wantVersion, row.want)
			}
		})
	}
}

func TestSampleMetadataIsRefused(t *testing.T) {
	for _, sample := range [][]byte{{1, 0, 0, 0, 1, 'h'}, []byte("oh"), make([]byte, 21)} {
		config := testConfig(newMemKeys())
		config.Stores[0].SampleMetadata = sample
		if err := config.Validate(); err == nil {
			t.Errorf("sample metadata %x is accepted", sample)
		}
	}
}

// Ciphertexts as the AWS sample proxy made them open here unchanged.
func TestSampleCiphertexts(t *testing.T) {
	sampleMetadata := []byte("key_version=1")
	p := startProxy(t, func(c *Config) { c.Stores[0].SampleMetadata = sampleMetadata })
	key := p.keys.keys["key-1"]
	key.rotate() // such ciphertexts stay of version 1
	digest, empty := sha256.Sum256(exampleAAD), sha256.Sum256(nil)
	for _, metadata := range [][]byte{nil, sampleMetadata} {
		end := append([]byte{byte(len(metadata))}, metadata...)
		for name, row := range map[string]struct{ aad, tokenAAD []byte }{
			"AAD":       {exampleAAD, slices.Concat([]byte{0, 33}, digest[:], end)},
			"no AAD":    {nil, slices.Concat([]byte{0, 0}, end)},
			"empty AAD": {[]byte{}, slices.Concat([]byte{0, 0}, empty[:], end)},
		} {
			for _, ivSize := range []int{12, 16} {
				t.Run(fmt.Sprintf("%s-%d-%d", name, len(metadata), ivSize), func(t *testing.T) {
					sealed, err := key.seal(1, []byte("Hello World!"), row.tokenAAD, ivSize)
					if err != nil {
						t.Fatal(err)
					}
					in := decryptBody(EncryptResponse{Ciphertext: sealed.Ciphertext, IV: sealed.IV, Tag: sealed.Tag, Metadata: metadata}, row.aad)
					var opened DecryptResponse
					p.post(t, p.client(t, false), keyPath+"decrypt", in.json()).decodeInto(t, &opened)
					if string(opened.Plaintext) != "Hello World!" {
						t.Errorf("opened %q", opened.Plaintext)
					}
					// Neither form can be passed off as the other.
					spoilt := in.with(body{"additionalAuthenticatedData": b64(3)})
					p.post(t, p.client(t, false), keyPath+"decrypt", spoilt.json()).wantError(t, InvalidCiphertextException)
				})
			}
		}
	}
}

// The token is given what the specification says, and the same for both
// operations.
func TestAADGivenToToken(t *testing.T) {
	p := startProxy(t, nil)
	key := p.keys.keys["key-1"]
	key.record = true
	p.post(t, p.client(t, false), keyPath+"encrypt", withCDIV().json()).decodeInto(t, new(EncryptResponse))
	want := slices.Concat([]byte{0, 33}, exampleAAD, []byte{6, 1, 0, 0, 0, 1, 'h'})
	if len(key.aads) != 2 || !bytes.Equal(key.aads[0], want) || !bytes.Equal(key.aads[1], want) {
		t.Errorf("token got %x, want twice %x", key.aads, want)
	}
}
