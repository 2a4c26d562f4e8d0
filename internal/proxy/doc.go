// Package proxy puts both front doors together from their configuration: the XKS
// proxy with its key stores, and the embedded KMS; with tokens, listeners and
// metrics. It puts a new configuration in the place of the old one while it
// serves. The parts know nothing of each other.
package proxy
