package xks

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"github.com/go-json-experiment/json"
)

// maxListed is the largest number of entries in keyUsage and ekmFleetDetails.
const maxListed = 10

// ResponseError is an answer of a proxy that the specification does not allow.
// It quotes nothing of the answer that may be secret.
type ResponseError struct {
	Status int    // of HTTP
	Reason string // what is wrong with the answer
}

func (e *ResponseError) Error() string {
	return fmt.Sprintf("invalid answer of the XKS proxy with status %d: %s", e.Status, e.Reason)
}

// decodeError makes an [*Error] of an error answer, or a [*ResponseError] if it
// is none ("Error codes").
func decodeError(status int, content []byte) error {
	var response ErrorResponse
	if err := json.Unmarshal(content, &response); err != nil {
		return &ResponseError{status, withoutContent(err).Error()}
	}
	switch want := response.Name.Status(); {
	case want == 0:
		return &ResponseError{status, "its errorName is missing or unknown"}
	case want != status:
		return &ResponseError{status, fmt.Sprintf("the status of %s is %d", response.Name, want)}
	case len(response.Message) >= 512:
		return &ResponseError{status, fmt.Sprintf("the errorMessage of its %s has 512 characters or more", response.Name)}
	}
	for _, ch := range []byte(response.Message) {
		if ch < ' ' || ch > '~' {
			return &ResponseError{status, fmt.Sprintf("the errorMessage of its %s is not printable ASCII", response.Name)}
		}
	}
	return &Error{Name: response.Name, Message: response.Message}
}

// fault says what is wrong with the answer of GetKeyMetadata.
func (r *MetadataResponse) fault() string {
	switch {
	case r.KeySpec == "":
		return "keySpec is missing"
	case r.KeyUsage == nil:
		return "keyUsage is missing"
	case len(r.KeyUsage) > maxListed:
		return fmt.Sprintf("keyUsage has %d values: at most %d are allowed", len(r.KeyUsage), maxListed)
	case r.KeyStatus != KeyEnabled && r.KeyStatus != KeyDisabled:
		return "keyStatus is neither ENABLED nor DISABLED"
	}
	return ""
}

// fault says what is wrong with the answer of Encrypt to a request.
func (r *EncryptResponse) fault(to *EncryptRequest) string {
	switch {
	case r.Ciphertext == nil:
		return "ciphertext is missing"
	case len(r.Ciphertext) != len(to.Plaintext):
		return fmt.Sprintf("ciphertext has %d bytes for a plaintext of %d", len(r.Ciphertext), len(to.Plaintext))
	case len(r.Tag) != TagSize:
		return fmt.Sprintf("authenticationTag has %d bytes: it must have %d", len(r.Tag), TagSize)
	case len(r.IV) != IVSize && len(r.IV) != 16:
		return fmt.Sprintf("initializationVector has %d bytes: it must have 12 or 16", len(r.IV))
	case len(r.Metadata) > MaxMetadataSize:
		return fmt.Sprintf("ciphertextMetadata has %d bytes: at most %d are allowed", len(r.Metadata), MaxMetadataSize)
	case to.CDIVAlgorithm == "":
		return ""
	case r.CDIV == nil:
		return "ciphertextDataIntegrityValue is missing although it was asked for"
	}
	want := r.integrityValue(to.AAD)
	if subtle.ConstantTimeCompare(r.CDIV, want[:]) != 1 {
		return "ciphertextDataIntegrityValue is not the hash of the answer (appendix C)"
	}
	return ""
}

// integrityValue computes the ciphertextDataIntegrityValue of appendix C.
func (r *EncryptResponse) integrityValue(aad []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, part := range [][]byte{aad, r.Metadata, r.IV, r.Ciphertext, r.Tag} {
		_, _ = h.Write(part) // a hash never fails
	}
	h.Sum(sum[:0])
	return sum
}

// fault says what is wrong with the answer of Decrypt to a request.
func (r *DecryptResponse) fault(to *DecryptRequest) string {
	switch {
	case r.Plaintext == nil:
		return "plaintext is missing"
	case len(r.Plaintext) != len(to.Ciphertext):
		return fmt.Sprintf("plaintext has %d bytes for a ciphertext of %d", len(r.Plaintext), len(to.Ciphertext))
	}
	return ""
}

// fault says what is wrong with the answer of GetHealthStatus.
func (r *HealthResponse) fault() string {
	switch n := len(r.EKMFleet); {
	case r.ProxyFleetSize < 1:
		return "xksProxyFleetSize is missing or less than 1"
	case r.ProxyVendor == "":
		return "xksProxyVendor is missing"
	case r.ProxyModel == "":
		return "xksProxyModel is missing"
	case r.EKMVendor == "":
		return "ekmVendor is missing"
	case n < 1 || n > maxListed:
		return fmt.Sprintf("ekmFleetDetails has %d entries: it must have 1 to %d", n, maxListed)
	}
	seen := make(map[string]bool)
	for i, m := range r.EKMFleet {
		switch {
		case m.ID == "":
			return fmt.Sprintf("ekmFleetDetails[%d].id is missing", i)
		case seen[m.ID]:
			return fmt.Sprintf("ekmFleetDetails[%d].id is that of another entry", i)
		case m.Model == "":
			return fmt.Sprintf("ekmFleetDetails[%d].model is missing", i)
		case m.Health != HealthActive && m.Health != HealthDegraded && m.Health != HealthUnavailable:
			return fmt.Sprintf("ekmFleetDetails[%d].healthStatus is none of ACTIVE, DEGRADED and UNAVAILABLE", i)
		}
		seen[m.ID] = true
	}
	return ""
}
