package bench

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/hyok-kms/hyok/xks"
)

// numberDigits is how many hexadecimal digits of a kmsRequestId count the
// requests of a run; those before them tell one run from another.
const numberDigits = 12

// notTheJSON leaves out what the decoder says, which may quote a plaintext.
const notTheJSON = "not the JSON object that the operation returns"

// call is a request that is sent again and again, each time with another
// kmsRequestId.
type call struct {
	path    string
	body    []byte
	decrypt bool
}

// workload is what the requests of a run are made of and checked against. It
// does not change once the run has begun.
type workload struct {
	runID     string // the constant part of each kmsRequestId
	plaintext []byte
	aad       []byte
	cdiv      bool
	encrypts  []call
	decrypts  []call
}

func newWorkload(l *Load) *workload {
	w := &workload{
		runID:     newRunID(),
		plaintext: make([]byte, l.PlaintextSize),
		aad:       make([]byte, l.AADSize),
		cdiv:      l.CDIV,
	}
	// crypto/rand.Read never fails: it ends the program instead.
	_, _ = rand.Read(w.plaintext)
	_, _ = rand.Read(w.aad)
	return w
}

// newRunID returns the first 24 of the 36 characters of a random UUID.
func newRunID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // as above
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-", b[:4], b[4:6], b[6:8], b[8:10])
}

// requestID returns the kmsRequestId of a slot.
func (w *workload) requestID(number int64) string {
	return fmt.Sprintf("%s%012x", w.runID, number)
}

func (w *workload) metadata(operation string) xks.RequestMetadata {
	return xks.RequestMetadata{
		AWSPrincipalARN: "arn:aws:iam::123456789012:user/bench",
		KMSKeyARN:       "arn:aws:kms:us-east-2:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
		KMSOperation:    operation,
		KMSRequestID:    w.requestID(0),
	}
}

func (w *workload) encryptCalls(keyIDs []string) ([]call, error) {
	r := xks.EncryptRequest{
		RequestMetadata: w.metadata("Encrypt"),
		AAD:             w.aad,
		Plaintext:       w.plaintext,
		Algorithm:       xks.AlgorithmAESGCM,
	}
	if w.cdiv {
		r.CDIVAlgorithm = xks.CDIVSHA256
	}
	body, err := json.Marshal(&r)
	if err != nil {
		return nil, fmt.Errorf("encode an Encrypt request: %w", err)
	}
	calls := make([]call, len(keyIDs))
	for i, id := range keyIDs {
		calls[i] = call{path: "/keys/" + id + "/encrypt", body: body}
	}
	return calls, nil
}

// decryptCall makes the call that undoes the Encrypt that gave this answer.
func (w *workload) decryptCall(keyID string, answer []byte) (call, error) {
	var sealed xks.EncryptResponse
	if err := json.Unmarshal(answer, &sealed); err != nil {
		return call{}, errors.New("answer to Encrypt: " + notTheJSON)
	}
	body, err := json.Marshal(&xks.DecryptRequest{
		RequestMetadata: w.metadata("Decrypt"),
		AAD:             w.aad,
		Tag:             sealed.Tag,
		Ciphertext:      sealed.Ciphertext,
		Metadata:        sealed.Metadata,
		Algorithm:       xks.AlgorithmAESGCM,
		IV:              sealed.IV,
	})
	if err != nil {
		return call{}, fmt.Errorf("encode a Decrypt request: %w", err)
	}
	return call{path: "/keys/" + keyID + "/decrypt", body: body, decrypt: true}, nil
}

// pick returns the call for a slot: both operations and all keys get the same
// share, in an order without a pattern that is the same in every run.
func (w *workload) pick(number int64) *call {
	h := scramble(uint64(number))
	calls := w.encrypts
	if len(calls) == 0 || len(w.decrypts) > 0 && h>>63 == 1 {
		calls = w.decrypts
	}
	return &calls[h%uint64(len(calls))]
}

// scramble is the output function of the SplitMix64 generator.
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// bodyFor returns a new copy of the call's body with the kmsRequestId of a
// slot: a transport may read a body after it has returned.
func (w *workload) bodyFor(c *call, number int64) []byte {
	body := bytes.Clone(c.body)
	if at := bytes.Index(body, []byte(w.runID)); at >= 0 {
		digits := body[at+len(w.runID):][:numberDigits]
		var n [numberDigits / 2]byte
		for i := range n {
			n[len(n)-1-i] = byte(number >> (8 * i))
		}
		hex.Encode(digits, n[:])
	}
	return body
}

// check returns what is wrong with an answer of status 200, if anything.
func (w *workload) check(c *call, answer []byte) (failure, string) {
	if c.decrypt {
		var r xks.DecryptResponse
		if err := json.Unmarshal(answer, &r); err != nil {
			return malformed, notTheJSON
		}
		if !bytes.Equal(r.Plaintext, w.plaintext) {
			return wrongPlaintext, "Decrypt returned another plaintext than was encrypted"
		}
		return "", ""
	}
	var r xks.EncryptResponse
	if err := json.Unmarshal(answer, &r); err != nil {
		return malformed, notTheJSON
	}
	if len(r.Ciphertext) != len(w.plaintext) || len(r.Tag) != xks.TagSize ||
		len(r.IV) != 12 && len(r.IV) != 16 || len(r.Metadata) > xks.MaxMetadataSize {
		return malformed, fmt.Sprintf("sizes in bytes: ciphertext %d, tag %d, IV %d, metadata %d",
			len(r.Ciphertext), len(r.Tag), len(r.IV), len(r.Metadata))
	}
	if w.cdiv && !bytes.Equal(r.CDIV, w.integrity(&r)) {
		return wrongCDIV, "ciphertextDataIntegrityValue is not what appendix C says"
	}
	return "", ""
}

// integrity computes the ciphertextDataIntegrityValue (appendix C).
func (w *workload) integrity(r *xks.EncryptResponse) []byte {
	h := sha256.New()
	for _, part := range [][]byte{w.aad, r.Metadata, r.IV, r.Ciphertext, r.Tag} {
		_, _ = h.Write(part) // a hash never fails
	}
	return h.Sum(nil)
}
