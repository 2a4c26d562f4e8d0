package keystore

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// place is where a token is: it may be in another slot once it was away, or another
// token in its slot.
type place struct {
	slot  atomic.Uint64 // written under mu; to read it is to wait for no call
	mu    sync.Mutex    // held while the token is looked for, by calls that may hang
	epoch uint64        // sessionCount.losses when the token was last seen there; guarded by mu
}

// locateToken returns the slot of the token. Once in each epoch it looks whether
// the token is still there, and for it if not.
func (t *Token) locateToken(epoch uint64) (uint, error) {
	p := &t.place
	p.mu.Lock()
	defer p.mu.Unlock()
	was := uint(p.slot.Load())
	if p.epoch == epoch {
		return was, nil
	}
	slot, err := t.findAgain(was)
	if err != nil {
		return 0, err
	}
	if slot != was {
		t.log.Warn("the token is in another slot", "slot", slot, "was", was)
	}
	p.slot.Store(uint64(slot))
	p.epoch = epoch
	return slot, nil
}

// findAgain returns the slot of the token, which was in a slot before.
func (t *Token) findAgain(slot uint) (uint, error) {
	ti, err := t.module.ctx.GetTokenInfo(slot)
	if err == nil && t.info.sameToken(tokenInfo(slot, ti)) {
		return slot, nil
	}
	if isModuleGone(err) {
		return 0, t.callError("C_GetTokenInfo", err)
	}
	slots, err := t.module.ctx.GetSlotList(true)
	if err != nil {
		return 0, t.callError("C_GetSlotList", err)
	}
	stranger := ""
	for _, s := range slots {
		ti, err := t.module.ctx.GetTokenInfo(s)
		switch info := tokenInfo(s, ti); {
		case isCode(err, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_DEVICE_REMOVED):
		case err != nil:
			return 0, t.callError("C_GetTokenInfo", err)
		case t.info.sameToken(info):
			return s, nil
		case info.Label == t.info.Label:
			stranger = fmt.Sprintf("; one of the same label has the serial number %s: open it by a new configuration, if it is meant", info.Serial)
		}
	}
	return 0, t.callError("C_GetSlotList", fmt.Errorf("%w: %s shows no token %q with the serial number %s any more%s",
		ErrTokenNotFound, t.module.path, t.info.Label, t.info.Serial, stranger))
}

// sameToken reports whether both descriptions are of one token. Its label may be
// changed, and its firmware.
func (i TokenInfo) sameToken(j TokenInfo) bool {
	return j.Initialized && i.Serial == j.Serial && i.Manufacturer == j.Manufacturer && i.Model == j.Model && (i.Serial != "" || i.Label == j.Label)
}
