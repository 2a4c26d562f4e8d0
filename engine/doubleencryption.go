package engine

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/xks"
)

// A key of an external key store encrypts twice: by its KMS key material in the
// main token, and what that gives by the external key, which its proxy uses.
// The proxy authenticates the hash of what the inner layer authenticates, so it
// sees nothing of the encryption context, however long that is.

// sealOuter has the proxy of a key's store encrypt the inner layer.
func (c *Client) sealOuter(ctx context.Context, op string, k *key, inner, aad []byte) (outerLayer, error) {
	cks, proxy, err := c.engine.proxyFor(k)
	if err != nil {
		return outerLayer{}, err
	}
	sum := sha256.Sum256(aad)
	m := c.requestMetadata(ctx, op)
	m.KMSKeyARN = k.arn()
	answer, err := ask(ctx, c.engine, cks, m, func(ctx context.Context) (*xks.EncryptResponse, error) {
		return proxy.Encrypt(ctx, k.XksKeyID, &xks.EncryptRequest{
			RequestMetadata: m, AAD: sum[:], Plaintext: inner, Algorithm: xks.AlgorithmAESGCM, CDIVAlgorithm: xks.CDIVSHA256,
		})
	})
	if err != nil {
		return outerLayer{}, using(err)
	}
	return outerLayer{iv: answer.IV, metadata: answer.Metadata, text: answer.Ciphertext, tag: answer.Tag}, nil
}

// openOuter has the proxy of a key's store decrypt the outer layer.
func (c *Client) openOuter(ctx context.Context, op string, k *key, body, aad []byte) ([]byte, error) {
	outer, ok := parseOuter(body)
	if !ok {
		return nil, invalidCiphertext()
	}
	cks, proxy, err := c.engine.proxyFor(k)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(aad)
	m := c.requestMetadata(ctx, op)
	m.KMSKeyARN = k.arn()
	request := &xks.DecryptRequest{
		RequestMetadata: m, AAD: sum[:], Tag: outer.tag, Ciphertext: outer.text, Metadata: outer.metadata,
		Algorithm: xks.AlgorithmAESGCM, IV: outer.iv,
	}
	if len(outer.metadata) == 0 {
		request.Metadata = nil // absent, as it came
	}
	answer, err := ask(ctx, c.engine, cks, m, func(ctx context.Context) (*xks.DecryptResponse, error) {
		return proxy.Decrypt(ctx, k.XksKeyID, request)
	})
	if err != nil {
		return nil, using(err)
	}
	return answer.Plaintext, nil
}

// proxyFor returns the proxy of a key's store.
func (e *Engine) proxyFor(k *key) (*customStore, *xks.Client, error) {
	cks := e.state.customStore(k.Account, k.Region, k.StoreID)
	n := e.connections.ready(storeRef(k.Account, k.Region, k.StoreID))
	if cks == nil || n == nil {
		return nil, nil, unavailable(k)
	}
	return cks, n.proxy.Load(), nil
}

// unavailable is the answer of operations with a key whose store is not
// connected.
func unavailable(k *key) error {
	if k.XksKeyID != "" {
		return invalidState(notConnectedProxy)
	}
	return invalidState("%s is unavailable.", k.arn())
}

const notConnectedProxy = "This KMS key is in a custom key store that is not connected to its external key store proxy. " +
	"Connect the external key store and try the request again."

// materialError is the answer when the token failed to use a key's material.
// Whoever destroyed it there, or withdrew its use, has stopped the key: that is a
// state of the key, which no new attempt changes, so it is no internal error.
func (c *Client) materialError(k *key, err error) error {
	if errors.Is(err, keystore.ErrInvalidCiphertext) && k.XksKeyID != "" {
		return invalidState("The ciphertext that the external key store proxy submitted for decryption, or the encryption context, " +
			"is corrupted, missing, or otherwise invalid.")
	}
	var failed *keystore.TokenError
	inCluster := k.StoreID != "" && k.XksKeyID == ""
	var answer error
	switch {
	case errors.Is(err, keystore.ErrUnsupported):
		return err
	case errors.Is(err, keystore.ErrKeyNotFound), errors.Is(err, keystore.ErrRootKey):
		answer = invalidState("The key material of %s is not in its token any more.", k.arn())
	case errors.Is(err, keystore.ErrKeyDisabled), errors.Is(err, keystore.ErrKeyUsage), errors.Is(err, keystore.ErrKeyAmbiguous):
		answer = invalidState("The token does not permit this operation with the key material of %s.", k.arn())
	case inCluster && errors.Is(err, keystore.ErrClosed):
		answer = unavailable(k)
	case inCluster && errors.Is(err, keystore.ErrBusy):
		answer = internal("No PKCS #11 session with the CloudHSM cluster is free. Wait, and try the request again.")
	case inCluster && (errors.As(err, &failed) || errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrPINIncorrect)):
		answer = invalidState("KMS cannot communicate with your CloudHSM cluster")
	default:
		return err
	}
	c.engine.log.Warn("a token did not use a key's material", "key", k.arn(), "error", err)
	return answer
}
