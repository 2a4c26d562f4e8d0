// Package bench loads an XKS proxy and measures what AWS KMS would see of it:
// how many requests it answers, how fast, and how many within the 250 ms after
// which AWS KMS gives up.
//
// A closed loop finds the maximum: each connection sends its next request when
// the last is answered. An open loop sends at a rate whatever the proxy does,
// as AWS KMS does: the latency of a request counts from the moment at which it
// was due, so that a proxy that stalls cannot hide the requests that it kept
// from being sent (coordinated omission).
package bench
