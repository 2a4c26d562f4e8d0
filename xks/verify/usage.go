package verify

import (
	"context"

	"github.com/hyok-kms/hyok/xks"
)

// usageChecks are about keys with restrictions.
func usageChecks() []Check {
	encryptOnly := restricted{"encrypt-only", func(t Target) string { return t.EncryptOnlyKeyID }}
	decryptOnly := restricted{"decrypt-only", func(t Target) string { return t.DecryptOnlyKeyID }}
	impotent := restricted{"impotent", func(t Target) string { return t.ImpotentKeyID }}
	disabled := restricted{"disabled", func(t Target) string { return t.DisabledKeyID }}

	checks := []Check{encryptOnly.usage(true, false)}
	checks = append(checks, encryptOnly.encrypts(false)...)
	checks = append(checks, encryptOnly.encryptRefused(true, wrongUsage)...)
	checks = append(checks, encryptOnly.decryptRefused(wrongUsage)...)

	checks = append(checks, decryptOnly.usage(false, true))
	checks = append(checks, decryptOnly.encryptRefused(false, wrongUsage)...)
	checks = append(checks, decryptOnly.encryptRefused(true, wrongUsage)...)
	// What another key encrypted is refused as such, not for the key's usage.
	checks = append(checks, decryptOnly.decryptRefused(badCiphertext)...)

	checks = append(checks, impotent.usage(false, false))
	checks = append(checks, impotent.encryptRefused(false, wrongUsage)...)
	checks = append(checks, impotent.encryptRefused(true, wrongUsage)...)
	checks = append(checks, impotent.decryptRefused(wrongUsage)...)

	checks = append(checks, disabled.check("status", metadata.section(), "keyStatus is DISABLED",
		func(ctx context.Context, p *prober, key string) error {
			a, err := p.describe(ctx, key)
			if err != nil {
				return err
			}
			return wantText(a, "keyStatus", xks.KeyDisabled)
		}))
	checks = append(checks, disabled.encryptRefused(false, wrongState)...)
	checks = append(checks, disabled.encryptRefused(true, wrongState)...)
	return append(checks, disabled.decryptRefused(wrongState)...)
}

// restricted is a key that the target may name, with what it is called.
type restricted struct {
	name string
	key  func(Target) string
}

func (k restricted) check(id, section, title string, run func(context.Context, *prober, string) error) Check {
	return Check{ID: "usage." + k.name + "." + id, Section: section, Title: k.name + " key: " + title, Level: Must,
		run: func(ctx context.Context, p *prober) error {
			key := k.key(p.target)
			if key == "" {
				return skipf("no %s key given", k.name)
			}
			return run(ctx, p, key)
		}}
}

func (k restricted) usage(canEncrypt, canDecrypt bool) Check {
	return k.check("metadata", metadata.section(), "keyUsage says what it may do", func(ctx context.Context, p *prober, key string) error {
		a, err := p.describe(ctx, key)
		if err != nil {
			return err
		}
		return wantUsage(a, canEncrypt, canDecrypt)
	})
}

// forms are Encrypt without and with AAD, with or without CDIV.
func (k restricted) forms(cdiv bool, section, title string, judge func(context.Context, *prober, *call) error) []Check {
	var checks []Check
	for _, form := range []struct {
		id, title string
		aad       []byte
	}{{"encrypt", "without AAD", nil}, {"encrypt-aad", "with AAD", []byte(sampleAAD)}} {
		id, text := form.id, "Encrypt "+form.title
		if cdiv {
			id, text = id+"-cdiv", text+" with CDIV"
		}
		checks = append(checks, k.check(id, section, text+" "+title, func(ctx context.Context, p *prober, key string) error {
			c := p.callWith(encrypt, key, encryptBody([]byte(samplePlaintext), form.aad))
			if cdiv {
				withCDIV(c)
			}
			return judge(ctx, p, c)
		}))
	}
	return checks
}

func (k restricted) encrypts(cdiv bool) []Check {
	return k.forms(cdiv, encrypt.section(), "succeeds", func(ctx context.Context, p *prober, c *call) error {
		return p.send(ctx, c).accepted()
	})
}

func (k restricted) encryptRefused(cdiv bool, want refusal) []Check {
	return k.forms(cdiv, secErrors, "is "+string(want.names()[0]), func(ctx context.Context, p *prober, c *call) error {
		return p.send(ctx, c).refused(want.names()...)
	})
}

// decryptRefused asks for the decryption of what the key itself encrypted, or
// if it may not, of what the target's main key did.
func (k restricted) decryptRefused(want refusal) []Check {
	check := func(id, title string, aad []byte) Check {
		return k.check(id, secErrors, title+" is "+string(want.names()[0]), func(ctx context.Context, p *prober, key string) error {
			s, err := p.seal(ctx, key, []byte(samplePlaintext), aad)
			if err != nil {
				if s, err = p.seal(ctx, p.target.KeyID, []byte(samplePlaintext), aad); err != nil {
					return err
				}
			}
			return p.open(ctx, key, s, aad).refused(want.names()...)
		})
	}
	return []Check{
		check("decrypt", "Decrypt without AAD", nil),
		check("decrypt-aad", "Decrypt with AAD", []byte(sampleAAD)),
	}
}
