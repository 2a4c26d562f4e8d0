// Package drill has the bad days of a token as tests: it hangs, dies, is overloaded,
// or a key is withdrawn from it, while requests come over the network as AWS KMS
// sends them. By itself each lasts a moment and asserts what callers see; make drill
// runs them at length, and prints the figures of docs/reliability.md.
package drill
