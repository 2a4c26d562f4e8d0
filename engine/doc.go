// Package engine implements AWS KMS over keys held in a PKCS#11 token.
//
// It owns what KMS means: keys and their states, key material and its rotation,
// aliases, grants, custom key stores and ciphertext blobs. A [Client], bound to a
// Region and a caller, has the methods of the official client. The engine knows
// nothing of HTTP, SQL or PKCS#11's constants.
package engine
