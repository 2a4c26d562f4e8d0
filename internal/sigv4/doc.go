// Package sigv4 signs and verifies HTTP requests by AWS Signature Version 4
// with the signature in the Authorization header and the body signed. It knows
// nothing of what is signed.
//
// A server verifies in two steps, because it finds the secret by what the first
// one returns: [Verifier.Parse] checks all that needs no secret,
// [Authorization.Check] the signature itself. Presigned URLs, unsigned or
// streamed payloads and Amazon S3's own rules for paths are not supported.
//
// # Paths
//
// SigV4 has a signer normalise the path first (RFC 3986, section 5.2.4, and
// repeated slashes) so that one signature fits many paths. A handler routes by
// the path as sent, so a verifier that normalises would accept under
// /b what was signed as /a/../b and leave it to the handler what that means.
// Parse therefore refuses paths with empty, "." and ".." segments: no request
// of the services it verifies has any, and what remains is its own normal form.
package sigv4
