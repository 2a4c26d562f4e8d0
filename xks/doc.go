// Package xks implements the AWS KMS External Key Store (XKS) Proxy API,
// version 1 (specification of May 2024), in both directions: the server that
// AWS KMS calls and the client that calls any such proxy.
//
// It owns the wire types, the error table, key stores with their credentials,
// and the ciphertext metadata that names a key version. It knows nothing of
// PKCS#11: the server asks a small interface, [Keys], to encrypt, decrypt and
// describe.
package xks
