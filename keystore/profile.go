package keystore

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
)

// IVMode says who makes the initialization vector of an AES-GCM encryption.
type IVMode int

const (
	// IVFromCaller: hyok gives a 96-bit IV, drawn from the token's generator.
	IVFromCaller IVMode = iota
	// IVWrittenBack: the token wants a zeroed 12-byte IV and writes the one
	// that it used into the mechanism parameter.
	IVWrittenBack
	// IVAppended: the token wants no IV and appends the one that it used to its
	// output, behind the tag.
	IVAppended
)

// TagPlace says where a token puts the tag in the output of C_Encrypt and
// expects it in the input of C_Decrypt.
type TagPlace int

const (
	// TagAfter: ciphertext, then tag (PKCS#11 v2.40, section 2.12.3).
	TagAfter TagPlace = iota
	// TagBefore: tag, then ciphertext.
	TagBefore
)

// Profile declares how a kind of token departs from the others. Nothing of it
// is probed: a wrong guess about an HSM could cost ciphertext.
type Profile struct {
	Name string
	IV   IVMode
	Tag  TagPlace
	// SessionCopies: C_CopyObject of a token key to a session object works and
	// makes calls cheaper.
	SessionCopies bool
	// Lanes is the number of threads that get most out of the token for
	// operations with keys; 0: one for each session. Searches and probes have
	// threads of their own.
	Lanes int
	// ReadWriteOnly: the module opens no read-only sessions.
	ReadWriteOnly bool
	// HalfKeys: a process that is killed while the token makes a key may leave a
	// part of it.
	HalfKeys bool
	// MissesChanges: after a change of its own the module does not notice those that
	// other processes made since it last looked, see softhsm.Reindex.
	MissesChanges bool
	// Latches: what the module could not read once is gone for it until C_Finalize, see
	// softhsm.Unreadable.
	Latches bool
	// StableHandles: the module gives the handle of an object that is gone to no other
	// one, unless all sessions were lost.
	StableHandles bool
	// BadTag lists return values of C_Decrypt that always mean a wrong tag.
	BadTag []uint
	// Unclear lists return values of C_Decrypt that mean a wrong tag or a sick
	// token; hyok then finds out which (see Token.Decrypt).
	Unclear []uint
	// Sessions is the number of sessions used unless configured.
	Sessions int
	// RunOnHardware: somebody has run hyok's tests on the real thing.
	RunOnHardware bool
}

// GenericProfile is the name of the profile of no make in particular.
const GenericProfile = "generic"

// softHSM2 is the name of the profile of SoftHSM2 alone.
const softHSM2 = "softhsm2"

// check refuses SoftHSM2's profile, which is also the one where none is named, for
// what is not SoftHSM2: it has peculiarities that no other token has.
func (p Profile) check(info TokenInfo) error {
	if p.Name != softHSM2 || info.Model == "SoftHSM v2" {
		return nil
	}
	others := strings.Join(slices.DeleteFunc(profileNames(), func(name string) bool { return name == softHSM2 }), ", ")
	return fmt.Errorf("%w: it is none of SoftHSM2 (its manufacturer is %s, its model %s): name its profile in the configuration: %s; "+
		"generic is that of tokens that take hyok's IV and do what PKCS#11 v2.40 says", ErrProfile, printable(info.Manufacturer), printable(info.Model), others)
}

// clearCodes are the return values that mean a bad ciphertext in every module.
func clearCodes() []uint {
	const ckrAEADDecryptFailed = 0x00000042 // PKCS#11 v3.0
	return []uint{pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, ckrAEADDecryptFailed}
}

// Profiles returns the profiles that hyok knows, SoftHSM2's first. "generic" is of no
// make in particular: it asks for nothing but what PKCS#11 v2.40 says.
func Profiles() []Profile {
	unclear := []uint{pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_DATA_INVALID, pkcs11.CKR_SIGNATURE_INVALID}
	return []Profile{
		{Name: softHSM2, IV: IVFromCaller, SessionCopies: true, Lanes: 1, HalfKeys: true, MissesChanges: true, Latches: true, StableHandles: true, BadTag: clearCodes(), Unclear: unclear, Sessions: 16, RunOnHardware: true},
		{Name: GenericProfile, BadTag: clearCodes(), Unclear: unclear, Sessions: 16},
		{Name: "cloudhsm", IV: IVWrittenBack, ReadWriteOnly: true, BadTag: clearCodes(), Unclear: unclear, Sessions: 32},
		{Name: "luna", IV: IVAppended, BadTag: clearCodes(), Unclear: unclear, Sessions: 32},
		{Name: "nshield", IV: IVWrittenBack, BadTag: clearCodes(), Unclear: unclear, Sessions: 32},
	}
}

func profileNames() []string {
	var names []string
	for _, p := range Profiles() {
		names = append(names, p.Name)
	}
	return names
}

// ProfileByName returns the profile with this name; "" is SoftHSM2's.
func ProfileByName(name string) (Profile, error) {
	all := Profiles()
	if name == "" {
		return all[0], nil
	}
	i := slices.IndexFunc(all, func(p Profile) bool { return p.Name == name })
	if i < 0 {
		return Profile{}, fmt.Errorf("unknown token profile %s: known are %s", printable(name), strings.Join(profileNames(), ", "))
	}
	return all[i], nil
}
