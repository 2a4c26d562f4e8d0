package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/keystore"
)

// crashKey is an external key of the token main as it must be.
type crashKey struct {
	versions map[uint32]keystore.Sealed // by number: a text that was encrypted under it
	spare    map[uint32]bool            // versions that the token spare has too
	disabled bool
}

func (k *crashKey) newest() uint32 { return slices.Max(slices.Collect(maps.Keys(k.versions))) }

// next draws a command.
func (r *crashRig) next() crashStep {
	steps := []func() crashStep{r.createKey, r.rotateKey, r.rotateKey, r.switchKey, r.switchKey, r.switchKey, r.replicateKey, r.replicateKey, r.destroyKey,
		r.createCredential, r.revokeCredential, r.createIdentity, r.deleteIdentity, r.createStore, r.initToken}
	if len(r.keys) < 3 {
		return r.createKey()
	}
	return steps[r.rand.IntN(len(steps))]()
}

func (r *crashRig) name(kind string) string {
	r.names++
	return fmt.Sprintf("%s-%d", kind, r.names)
}

// key draws a key, one that is not disabled if so wanted.
func (r *crashRig) key(enabled bool) (string, *crashKey) {
	ids := slices.Sorted(maps.Keys(r.keys))
	ids = slices.DeleteFunc(ids, func(id string) bool { return enabled && r.keys[id].disabled })
	if len(ids) == 0 {
		return "", nil
	}
	id := ids[r.rand.IntN(len(ids))]
	return id, r.keys[id]
}

// has reports what a token has of a key; nil: nothing.
func (r *crashRig) has(token, id string) (info *keystore.KeyInfo) {
	r.open(token, func(ctx context.Context, tok *keystore.Token) {
		found, err := tok.Describe(ctx, id)
		if err == nil {
			info = &found
		} else if !errors.Is(err, keystore.ErrKeyNotFound) {
			r.t.Errorf("key %s in %s: %v", id, token, err)
		}
	})
	return info
}

func hasVersion(info *keystore.KeyInfo, number uint32) bool {
	return info != nil && slices.ContainsFunc(info.Versions, func(v keystore.VersionInfo) bool { return v.Number == number })
}

func (r *crashRig) createKey() crashStep {
	id := r.name("key")
	return crashStep{
		args: []string{"key", "create", id, "--replicable", "--token", "main"},
		done: func([]byte) {
			r.keys[id] = &crashKey{versions: map[uint32]keystore.Sealed{}, spare: map[uint32]bool{}}
			r.seal(id, 1)
		},
		seen: func() bool { return r.has("main", id) != nil },
	}
}

func (r *crashRig) rotateKey() crashStep {
	id, k := r.key(true)
	if k == nil {
		return r.createKey()
	}
	next := k.newest() + 1
	return crashStep{
		args: []string{"key", "rotate", id, "--token", "main"},
		done: func([]byte) { r.seal(id, next) },
		seen: func() bool { return hasVersion(r.has("main", id), next) },
	}
}

// switchKey disables a key or enables it. Its versions are switched one by one, so
// that a command that was killed has to be repeated.
func (r *crashRig) switchKey() crashStep {
	id, k := r.key(false)
	disabled := !k.disabled
	return crashStep{
		args: []string{"key", map[bool]string{true: "disable", false: "enable"}[disabled], id, "--token", "main"},
		done: func([]byte) { k.disabled = disabled },
		seen: func() bool {
			info := r.has("main", id)
			if info == nil || len(info.Versions) != len(k.versions) {
				r.t.Errorf("key %s lost a version: %+v", id, info)
				return false
			}
			// Until it is repeated nothing can be said of what was begun.
			r.do(0, "key", map[bool]string{true: "disable", false: "enable"}[disabled], id, "--token", "main")
			return true
		},
	}
}

func (r *crashRig) replicateKey() crashStep {
	id, k := r.key(false)
	return crashStep{
		args: []string{"key", "replicate", id, "--from", "main", "--to", "spare"},
		done: func([]byte) {
			for n := range k.versions {
				k.spare[n] = true
			}
		},
		seen: func() bool { return false }, // some versions may be there: they are whole, or the repetition fails
		// What is in spare already is proven equal by it.
		again: true,
	}
}

func (r *crashRig) destroyKey() crashStep {
	id, k := r.key(false)
	number := slices.Min(slices.Collect(maps.Keys(k.versions)))
	all := len(k.versions) == 1
	args := []string{"key", "destroy", id, "--yes", "--token", "main"}
	if !all {
		args = append(args, "--version", fmt.Sprint(number))
	}
	return crashStep{
		args: args,
		done: func([]byte) {
			if delete(k.versions, number); all {
				delete(r.keys, id)
				r.forgetSpare(id)
			}
		},
		seen: func() bool { return !hasVersion(r.has("main", id), number) },
	}
}

// forgetSpare destroys what the other token has of a key, so that its id is free.
func (r *crashRig) forgetSpare(id string) {
	if r.has("spare", id) != nil {
		r.do(0, "key", "destroy", id, "--yes", "--token", "spare")
	}
}

// seal encrypts under a version that is new.
func (r *crashRig) seal(id string, number uint32) {
	r.open("main", func(ctx context.Context, tok *keystore.Token) {
		k, err := tok.Find(ctx, id)
		if err == nil {
			r.keys[id].versions[number], err = k.Encrypt(ctx, number, []byte(id), nil)
		}
		if err != nil {
			r.t.Errorf("encrypt under version %d of the key %s: %v", number, id, err)
		}
	})
}

// checkKeys looks whether each key is as it must be, and opens what was encrypted.
func (r *crashRig) checkKeys() {
	r.t.Helper()
	for _, token := range []string{"main", "spare"} {
		r.open(token, func(ctx context.Context, tok *keystore.Token) {
			infos, err := tok.Keys(ctx)
			if err != nil {
				r.t.Fatal(err)
			}
			for _, info := range infos {
				if r.keys[info.ID] == nil || info.Ambiguous {
					r.t.Errorf("token %s has %+v", token, info)
				}
			}
			for id, k := range r.keys {
				r.checkKey(ctx, tok, id, k)
			}
		})
	}
}

func (r *crashRig) checkKey(ctx context.Context, tok *keystore.Token, id string, k *crashKey) {
	for number, sealed := range k.versions {
		if tok.Name() == "spare" && !k.spare[number] {
			continue
		}
		found, err := tok.Find(ctx, id)
		var text []byte
		if err == nil {
			text, err = found.Decrypt(ctx, number, sealed, nil)
		}
		switch {
		case err == nil && string(text) == id && (tok.Name() == "spare" || !k.disabled):
			r.decrypted++
		case tok.Name() == "spare" && errors.Is(err, keystore.ErrKeyDisabled): // as it was when it was copied
		case tok.Name() == "main" && k.disabled && errors.Is(err, keystore.ErrKeyDisabled):
		default:
			r.t.Errorf("token %s, version %d of the key %s (disabled: %v) opens to %q: %v", tok.Name(), number, id, k.disabled, text, err)
		}
	}
}

// record returns a step that makes or removes a record by this name.
func (r *crashRig) record(kind, name string, gone bool, args ...string) crashStep {
	return crashStep{
		args: args,
		done: func([]byte) { r.records[name] = crashRecord{kind, gone} },
		seen: func() bool { return r.hasRecord(kind, name) != gone },
	}
}

// unnamed returns a step that makes a record whose name the command tells.
func (r *crashRig) unnamed(kind string, decode func(output []byte) string, args ...string) crashStep {
	return crashStep{
		args: args,
		done: func(output []byte) {
			if output != nil {
				r.records[decode(output)] = crashRecord{kind: kind}
			}
		},
		seen: func() bool { return false }, // nobody knows its name, nor its secret
	}
}

func (r *crashRig) createCredential() crashStep {
	return r.unnamed("credential", func(output []byte) string {
		var v credentialView
		(&outcome{stdout: string(output)}).decode(r.t, &v)
		return v.AccessKeyID
	}, "credential", "create", "prod", "-o", "json")
}

func (r *crashRig) createIdentity() crashStep {
	return r.unnamed("identity", func(output []byte) string {
		var v identityView
		(&outcome{stdout: string(output)}).decode(r.t, &v)
		return v.AccessKeyID
	}, "identity", "create", "--account", "111122223333", "-o", "json")
}

func (r *crashRig) revokeCredential() crashStep {
	if name := r.draw("credential"); name != "" {
		return r.record("credential", name, true, "credential", "revoke", "prod", name, "--yes")
	}
	return r.createCredential()
}

func (r *crashRig) deleteIdentity() crashStep {
	if name := r.draw("identity"); name != "" {
		return r.record("identity", name, true, "identity", "delete", name, "--yes")
	}
	return r.createIdentity()
}

func (r *crashRig) createStore() crashStep {
	name := r.name("store")
	return r.record("store", name, false, "store", "create", name, "--token", "main", "--key", "k")
}

func (r *crashRig) initToken() crashStep {
	name := r.name("crash-" + r.uris["main"].Token)
	s := r.record("token", name, false, "token", "init", name, "--module", r.uris["main"].ModulePath, "--so-pin-file", r.path("so-pin"), "--pin-file", r.path("pin"))
	s.seen = func() bool {
		if r.hasRecord("token", name) {
			return true
		}
		again := runProgram(r.t.Context(), "", s.args...) // what was begun is finished, or begun anew
		if again.code != 0 && !strings.Contains(again.stderr, "softhsm2-util --delete-token") {
			r.t.Errorf("hyok %v again: %s", s.args, again.stderr)
		}
		return again.code == 0
	}
	return s
}

// draw returns the name of a record of this kind; "": there is none.
func (r *crashRig) draw(kind string) string {
	names := slices.Sorted(maps.Keys(r.records))
	names = slices.DeleteFunc(names, func(name string) bool { return r.records[name] != crashRecord{kind: kind} })
	if len(names) == 0 {
		return ""
	}
	return names[r.rand.IntN(len(names))]
}

// hasRecord looks whether a record is there.
func (r *crashRig) hasRecord(kind, name string) bool {
	c := r.config()
	switch kind {
	case "credential":
		return slices.ContainsFunc(c.Store("prod").Credentials, func(c config.Credential) bool { return c.AccessKeyID == name })
	case "identity":
		return slices.ContainsFunc(c.KMS.Identities, func(i config.Identity) bool { return i.AccessKeyID == name })
	case "store":
		return c.Store(name) != nil
	}
	infos, err := new(keystore.Modules).Tokens(r.uris["main"].ModulePath, "")
	if err != nil && len(infos) == 0 { // half a token is in nobody's way
		r.t.Fatal(err)
	}
	return slices.ContainsFunc(infos, func(i keystore.TokenInfo) bool { return i.Label == name && i.PINSet })
}

func (r *crashRig) checkRecords() {
	r.t.Helper()
	for name, record := range r.records {
		if r.hasRecord(record.kind, name) == record.gone {
			r.t.Errorf("the %s %s should be gone: %v", record.kind, name, record.gone)
		}
	}
}
