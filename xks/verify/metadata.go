package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/hyok-kms/hyok/xks"
)

// metadataChecks are about GetKeyMetadata.
func metadataChecks() []Check {
	section := metadata.section()
	keyCheck := func(id, title string, look func(answer) error) Check {
		return Check{ID: "metadata." + id, Section: section, Title: title, Level: Must,
			run: func(ctx context.Context, p *prober) error {
				a, err := p.describe(ctx, p.target.KeyID)
				if err != nil {
					return err
				}
				return look(a)
			}}
	}
	checks := []Check{
		accepts("metadata.for.CreateKey", section, "GetKeyMetadata for CreateKey succeeds", Must, metadata),
		accepts("metadata.for.DescribeKey", section, "GetKeyMetadata for DescribeKey succeeds", Must, metadata,
			set("requestMetadata.kmsOperation", "DescribeKey"), set("requestMetadata.kmsKeyArn", sampleKeyARN)),
		keyCheck("key-spec", "keySpec is AES_256", func(a answer) error { return wantText(a, "keySpec", xks.KeySpecAES256) }),
		keyCheck("key-status", "keyStatus of the key given is ENABLED", func(a answer) error { return wantText(a, "keyStatus", xks.KeyEnabled) }),
		keyCheck("key-usage", "keyUsage of the key given contains ENCRYPT and DECRYPT", func(a answer) error { return wantUsage(a, true, true) }),
		keyCheck("key-usage-count", "keyUsage has at most ten values", func(a answer) error {
			usage, err := keyUsage(a)
			if err == nil && len(usage) > 10 {
				err = fmt.Errorf("want at most ten values in keyUsage, got %d", len(usage))
			}
			return err
		}),
	}
	return append(checks, keyIDChecks(metadata)...)
}

// describe asks for the metadata of a key and demands success.
func (p *prober) describe(ctx context.Context, key string) (answer, error) {
	a := p.send(ctx, p.callWith(metadata, key, object{}))
	return a, a.accepted()
}

func wantText(a answer, name, want string) error {
	got, err := a.text(name)
	if err == nil && got != want {
		err = fmt.Errorf("want %s as %s, got %s", want, name, shorten(got))
	}
	return err
}

func keyUsage(a answer) ([]string, error) {
	m, err := a.members()
	if err != nil {
		return nil, err
	}
	var usage []string
	if err := json.Unmarshal(m["keyUsage"], &usage); err != nil || m["keyUsage"].Kind() != '[' {
		return nil, fmt.Errorf("want an array of strings as keyUsage, got %s", shorten(string(m["keyUsage"])))
	}
	return usage, nil
}

// wantUsage demands that keyUsage says exactly this of encrypt and decrypt;
// other usages do not matter.
func wantUsage(a answer, canEncrypt, canDecrypt bool) error {
	usage, err := keyUsage(a)
	if err != nil {
		return err
	}
	var errs []error
	for name, want := range map[string]bool{xks.UsageEncrypt: canEncrypt, xks.UsageDecrypt: canDecrypt} {
		switch got := slices.Contains(usage, name); {
		case want && !got:
			errs = append(errs, fmt.Errorf("want %s in keyUsage, got %s", name, shorten(fmt.Sprint(usage))))
		case got && !want:
			errs = append(errs, fmt.Errorf("want no %s in keyUsage, got %s", name, shorten(fmt.Sprint(usage))))
		}
	}
	return errors.Join(errs...)
}
