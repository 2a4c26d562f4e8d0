// Package child has a PKCS#11 module in a process of its own. A crash inside the
// vendor's library, a call that never returns, a leak of memory are then those of
// a process that can be ended and started again, and neither the library nor the
// PIN is in the memory of the one that parses requests.
//
// [Client] is the module in the parent; [Serve] is what the process does that it
// starts, of the same binary. They talk over pairs of Unix sockets, which no name
// and no network leads to. The first one only says, by its end, that the parent is
// gone, and carries the child's ends of the others, the lines. A call takes a line
// for itself: the goroutine that asks writes a request and reads the reply, and a
// thread of the child waits at the other end. So calls run side by side, none waits
// for one that hangs, and nothing is handed from one goroutine to another, which
// would take longer than the call itself.
//
// Neither side trusts the lengths that the other states. A process that answers
// what is no reply is ended.
package child
