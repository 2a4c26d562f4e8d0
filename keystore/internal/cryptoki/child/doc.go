// Package child has a PKCS#11 module in a process of its own. A crash inside the
// vendor's library, a call that never returns, a leak of memory are then those of
// a process that can be ended and started again, and neither the library nor the
// PIN is in the memory of the one that parses requests.
//
// [Client] is the module in the parent; [Serve] is what the process does that it
// starts, of the same binary. They talk over a pair of Unix sockets of type
// SOCK_SEQPACKET, which no name and no network leads to. A request and a reply are
// one packet each, and carry an id, so that calls run side by side and one that
// hangs holds nobody up.
//
// Neither side trusts the lengths that the other states. A process that answers
// what is no reply is ended.
package child
