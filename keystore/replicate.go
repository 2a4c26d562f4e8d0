package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// ReplicateOptions says what Replicate copies and how.
type ReplicateOptions struct {
	// Version is the version to copy; 0: all.
	Version uint32
	// WrappingKey is the label of an AES key that both tokens have, under which
	// versions are wrapped; "": under a key that is made for this one time and goes
	// from token to token wrapped under an RSA key of the target.
	WrappingKey string
	// Replicable says whether the copies can be replicated again.
	Replicable Replicable
}

// Replicated is a version that both tokens have now.
type Replicated struct {
	Version uint32 `json:"version"`
	// Made is false where the target had the same key already.
	Made     bool `json:"made"`
	Disabled bool `json:"disabled"` // in the target
	// Digest tells the key from others, see Material.Digest: what the source and the
	// target made of one text, in hex; "" where a token does not do AES-ECB.
	Digest string `json:"digest,omitzero"`
}

// Replicate copies versions of an external key from one token to another, with
// label, mark and usage, so that what is disabled stays so. The key is wrapped in
// the one token and unwrapped in the other: this process sees it wrapped alone.
//
// Each copy is proven before it counts: it has to open what the source sealed. A
// version that the target has already is proven in the same way, before anything is
// made, and passed over (ErrKeysDiffer: it is another key). So a call that failed or
// was killed can be repeated; versions that were copied before stay, and what is
// there of one is whole.
//
// ErrNotReplicable: a version may not leave the source, or not in this way;
// ErrUnsupported: one of the tokens forbids a step; ErrInvalidMaterial: the wrapping
// keys of the tokens are different ones. Other errors are those of Describe.
func Replicate(ctx context.Context, from, to *Token, id string, o ReplicateOptions) ([]Replicated, error) {
	if err := ValidateID(id); err != nil {
		return nil, err
	}
	if isReserved(o.WrappingKey) {
		return nil, fmt.Errorf("a wrapping key cannot be one of hyok's own keys: %s", printable(o.WrappingKey))
	}
	if from.sameAs(to) {
		return nil, fmt.Errorf("%s and %s are the same token: a key is replicated to another", from.name, to.name)
	}
	r, err := newReplication(ctx, from, to, id, o)
	if err != nil {
		return nil, err
	}
	done, err := r.run(ctx)
	err = errors.Join(err, r.end(ctx))
	if slices.ContainsFunc(done, func(d Replicated) bool { return d.Made }) {
		err = errors.Join(err, to.refresh(ctx))
	}
	return done, err
}

// sameAs reports whether two tokens are one.
func (t *Token) sameAs(u *Token) bool {
	return t.module == u.module && t.info.Slot == u.info.Slot || t.info.Serial != "" && t.info.order() == u.info.order()
}

// replication is one call of Replicate.
type replication struct {
	id     string
	o      ReplicateOptions
	source *held
	target *held
}

func newReplication(ctx context.Context, from, to *Token, id string, o ReplicateOptions) (*replication, error) {
	source, target, err := holdBoth(ctx, from, to)
	return &replication{id: id, o: o, source: source, target: target}, err
}

func (r *replication) end(ctx context.Context) error {
	return errors.Join(r.source.end(ctx), r.target.end(ctx))
}

// candidate is a version to be copied, as the source has it.
type candidate struct {
	info        VersionInfo
	permissions permissions
	handle      pkcs11.ObjectHandle
}

func (r *replication) run(ctx context.Context) ([]Replicated, error) {
	wanted, err := step(ctx, r.source, r.candidates)
	if err != nil {
		return nil, err
	}
	there, err := step(ctx, r.target, func(w *worker) (map[uint32]pkcs11.ObjectHandle, error) { return r.present(w) })
	if err != nil {
		return nil, err
	}
	var done []Replicated
	var missing []candidate
	for _, c := range wanted {
		h, ok := there[c.info.Number]
		if !ok {
			missing = append(missing, c)
			continue
		}
		same, err := r.compare(ctx, c, h)
		if err != nil {
			return nil, err
		}
		done = append(done, same)
	}
	made, err := r.copyAll(ctx, missing)
	done = append(done, made...)
	slices.SortFunc(done, func(a, b Replicated) int { return int(int64(a.Version) - int64(b.Version)) })
	return done, err
}

// candidates returns the versions to copy, in ascending order.
func (r *replication) candidates(w *worker) ([]candidate, error) {
	found, err := w.unambiguous(r.id)
	if err != nil {
		return nil, err
	}
	var wanted []candidate
	for _, o := range found {
		if r.o.Version != 0 && r.o.Version != o.number {
			continue
		}
		c := candidate{handle: o.handle}
		if c.info, err = w.versionInfo(o); err != nil {
			return nil, err
		}
		if c.permissions, err = w.permissions(o.handle); err != nil {
			return nil, err
		}
		wanted = append(wanted, c)
	}
	if len(wanted) == 0 {
		return nil, w.t.versionNotFound(r.id, r.o.Version)
	}
	return wanted, nil
}

// present returns what the target has of the key.
func (r *replication) present(w *worker) (map[uint32]pkcs11.ObjectHandle, error) {
	found, err := w.unambiguous(r.id)
	if err != nil && !errors.Is(err, ErrKeyNotFound) {
		return nil, err
	}
	there := make(map[uint32]pkcs11.ObjectHandle, len(found))
	for _, o := range found {
		there[o.number] = o.handle
	}
	return there, nil
}

// copyAll copies versions in their order, so that the newest comes last.
func (r *replication) copyAll(ctx context.Context, missing []candidate) (made []Replicated, err error) {
	if len(missing) == 0 {
		return nil, nil
	}
	for _, c := range missing {
		if err := r.mayLeave(c); err != nil {
			return nil, err
		}
	}
	k, err := r.agree(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range missing {
		one, err := r.copy(ctx, k, c)
		if err != nil {
			return made, fmt.Errorf("%s, %d of %d made: %w", r.name(c.info.Number), len(made), len(missing), err)
		}
		made = append(made, one)
	}
	return made, nil
}

// mayLeave reports whether the source says that a version may leave it.
func (r *replication) mayLeave(c candidate) error {
	switch c.info.Replicable() {
	case NotReplicable:
		return r.unextractable(c.info.Number)
	case ReplicableByTrusted:
		if r.o.WrappingKey == "" {
			return fmt.Errorf("%s in token %s: %w but under a wrapping key that the token trusts (CKA_WRAP_WITH_TRUSTED): "+
				"name one that both tokens have and whose CKA_TRUSTED their security officers have set", r.name(c.info.Number), r.source.t.name, ErrNotReplicable)
		}
	case ReplicableByAny:
	}
	return nil
}

func (r *replication) unextractable(number uint32) error {
	return fmt.Errorf("%s in token %s: %w: it never leaves the token (CKA_EXTRACTABLE is false). Make a new version that can be replicated (hyok key rotate --replicable) and copy that one alone, "+
		"or clone the token by its vendor's means", r.name(number), r.source.t.name, ErrNotReplicable)
}

func (r *replication) name(number uint32) string {
	return fmt.Sprintf("version %d of the key %s", number, r.id)
}

// forbidden says of a token that it forbids a step, or else what call has answered.
func (w *worker) forbidden(call, what string, err error) error {
	if isCode(err, pkcs11.CKR_KEY_NOT_WRAPPABLE, pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID,
		pkcs11.CKR_ACTION_PROHIBITED, pkcs11.CKR_ATTRIBUTE_READ_ONLY, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID,
		pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.CKR_FUNCTION_NOT_SUPPORTED,
		pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_SIZE_RANGE,
		pkcs11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT, pkcs11.CKR_WRAPPING_KEY_SIZE_RANGE,
		pkcs11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT, pkcs11.CKR_UNWRAPPING_KEY_SIZE_RANGE) {
		// %v: it is no failure of the token.
		return fmt.Errorf("token %s: %w: it does not let hyok %s (%s: %v)", w.t.name, ErrUnsupported, what, call, err)
	}
	return w.fail(call, err)
}
