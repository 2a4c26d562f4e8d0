// Package proxy puts a whole XKS proxy together from its configuration: tokens,
// key stores, listeners, metrics; and puts a new configuration in the place of
// the old one while it serves. The parts know nothing of each other.
package proxy
