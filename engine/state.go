package engine

import (
	"sync"
	"time"

	"github.com/tidwall/btree"

	"github.com/hyok-kms/hyok/keystore"
)

// state is all metadata in memory, which reads are served from. What is stored
// durably becomes part of it afterwards, so nothing is seen that could be lost.
// Records are immutable: to change one is to put another in its place.
type state struct {
	mu sync.RWMutex // guards everything below

	keys    btree.Map[string, *key]   // by keyRef, in order
	byRef   map[keyRef]*key           // the same, for look-up: with many keys the tree has to be searched in many places of memory
	aliases btree.Map[string, *alias] // by account/region/name
	// keyAliases is aliases by keyRef/name, for the aliases of one key.
	keyAliases btree.Map[string, *alias]
	grants     btree.Map[string, *grant] // by keyRef/grant id
	// retirable is grants by their retirableRef, for those of one retiring principal.
	retirable   btree.Map[string, *grant]
	grantIDs    map[string]*grant               // by id
	namedGrants map[string]*grant               // those with a name, by their likeness
	keyGrants   map[keyRef]int                  // number of grants of a key
	stores      btree.Map[string, *customStore] // by account/region/id
	storeKeys   map[string]int                  // number of keys of a custom key store, by account/region/id
	xksKeys     map[string]keyRef               // the key of an external key, by account/region/store id/external key id
	imports     map[string]*importToken         // by id
	wraps       map[keystore.KeyWrap]bool       // that a record is stored of
}

func newState() *state {
	return &state{
		byRef: map[keyRef]*key{}, grantIDs: map[string]*grant{}, namedGrants: map[string]*grant{}, keyGrants: map[keyRef]int{}, storeKeys: map[string]int{}, xksKeys: map[string]keyRef{}, imports: map[string]*importToken{}, wraps: map[keystore.KeyWrap]bool{},
	}
}

// isEmpty reports whether nothing was ever made here, as far as records tell.
func (s *state) isEmpty() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.keys.Len()+s.aliases.Len()+s.grants.Len()+s.stores.Len()+len(s.imports) == 0
}

// key returns a key, or nil if there is none at this time.
func (s *state) key(ref keyRef, now time.Time) *key {
	s.mu.RLock()
	k := s.byRef[ref]
	s.mu.RUnlock()
	if k == nil || k.isGone(now) {
		return nil
	}
	return k
}

// stored returns a key, also one whose time has come; nil if there is none.
func (s *state) stored(ref keyRef) *key {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, _ := s.keys.Get(string(ref))
	return k
}

// putKey puts a key in the place of the one that it was cloned from. mu is held,
// as for all that begins with put or drop.
func (s *state) putKey(k *key) {
	if k.used == nil {
		k.used = new(usage)
	}
	ref := k.ref()
	k.ID = string(ref[len(ref)-len(k.ID):]) // the same text, once in memory
	s.byRef[ref] = k
	if _, replaced := s.keys.Set(string(ref), k); replaced {
		return // its store never changes
	}
	if k.StoreID == "" {
		return
	}
	s.storeKeys[storeRef(k.Account, k.Region, k.StoreID)]++
	if k.XksKeyID != "" {
		s.xksKeys[xksKeyRef(k)] = k.ref()
	}
}

func (s *state) dropKey(k *key) {
	if _, there := s.keys.Delete(string(k.ref())); !there {
		return
	}
	delete(s.byRef, k.ref())
	if k.StoreID == "" {
		return
	}
	ref := storeRef(k.Account, k.Region, k.StoreID)
	if s.storeKeys[ref]--; s.storeKeys[ref] == 0 {
		delete(s.storeKeys, ref)
	}
	if s.xksKeys[xksKeyRef(k)] == k.ref() { // not yet another's
		delete(s.xksKeys, xksKeyRef(k))
	}
}

func storeRef(account, region, id string) string { return account + "/" + region + "/" + id }

func xksKeyRef(k *key) string {
	return storeRef(k.Account, k.Region, k.StoreID) + "/" + k.XksKeyID
}

// alias is a name for a key.
type alias struct {
	Account string    `json:"a"`
	Region  string    `json:"r"`
	Name    string    `json:"n"` // with the prefix alias/
	KeyID   string    `json:"k"`
	Created time.Time `json:"c"`
	Updated time.Time `json:"u"`
}

func aliasRef(account, region, name string) string { return account + "/" + region + "/" + name }

func (a *alias) ref() string { return aliasRef(a.Account, a.Region, a.Name) }

func (a *alias) arn() string { return resourceARN(a.Account, a.Region, a.Name) }

// target is the key that the alias names.
func (a *alias) target() keyRef { return newKeyRef(a.Account, a.Region, a.KeyID) }

func (a *alias) refOfKey() string { return string(a.target()) + "/" + a.Name }

func (s *state) alias(account, region, name string) *alias {
	s.mu.RLock()
	defer s.mu.RUnlock()
	a, _ := s.aliases.Get(aliasRef(account, region, name))
	return a
}

func (s *state) putAlias(a *alias) {
	if old, replaced := s.aliases.Set(a.ref(), a); replaced {
		s.keyAliases.Delete(old.refOfKey())
	}
	s.keyAliases.Set(a.refOfKey(), a)
}

func (s *state) dropAlias(a *alias) {
	s.aliases.Delete(a.ref())
	s.keyAliases.Delete(a.refOfKey())
}
