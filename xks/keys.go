package xks

import "context"

// Keys finds the external keys of one key store and tells how its tokens are.
//
// Its methods, and those of [Key], return an error of type [*Error] where the
// table of error codes has a name for what happened: KeyNotFoundException,
// InvalidStateException (disabled), InvalidKeyUsageException,
// InvalidCiphertextException (Decrypt alone), DependencyTimeoutException (no session
// free in time, or no answer), InternalException. The server answers
// DependencyTimeoutException to context.DeadlineExceeded and
// InternalException to anything else.
type Keys interface {
	// Find returns the key with this external key id. It does not ask the
	// token about an id that it knows.
	Find(ctx context.Context, id string) (Key, error)
	// Health returns one entry for each token, from a probe not older than a
	// minute, without calling the token.
	Health() []ExternalKeyManager
}

// Key is one external key with all its versions, numbered from 1.
type Key interface {
	// Token returns the configured name of the token that did the last operation
	// with the key, or before one, of a token that holds it. It is logged.
	Token() string
	// Describe asks the token for the present state of the newest version.
	Describe(ctx context.Context) (KeyDescription, error)
	// Newest returns the version that new encryptions use.
	Newest() uint32
	// Encrypt seals plaintext under a version with an IV from the token.
	Encrypt(ctx context.Context, version uint32, plaintext, aad []byte) (Sealed, error)
	// Decrypt opens what Encrypt, or another proxy, sealed under a version. A
	// version that does not exist is InvalidCiphertextException. The plaintext
	// is the caller's, who wipes it; it shares no memory with sealed.
	Decrypt(ctx context.Context, version uint32, sealed Sealed, aad []byte) ([]byte, error)
}

// KeyDescription is the state of an external key in its token.
type KeyDescription struct {
	Encrypt, Decrypt bool // what the token permits
	Disabled         bool // by hyok's own mark
}

// Sealed is the output of AES-GCM.
type Sealed struct {
	IV         []byte // 12 or 16 bytes
	Ciphertext []byte // as long as the plaintext
	Tag        []byte // TagSize bytes
}
