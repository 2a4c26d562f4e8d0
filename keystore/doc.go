// Package keystore holds keys in PKCS#11 tokens and uses them there.
//
// It owns modules, slots, logins, sessions and object handles: no handle ever
// leaves it. Its operations are whole ones (encrypt this under that key), each
// bounded by its context even when the module hangs, so that what stands behind
// a [Token] could as well be a module in another process.
//
// Keys are external keys of a [Token], found by their labels, or material of a
// [Vault], which its owner stores wrapped under a root key in the token.
//
// It knows nothing of HTTP, AWS or what a key is used for.
package keystore
