package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/hyok-kms/hyok/keystore"
)

// runIsolation measures what it costs to have the module in a process of its own:
// the same token, the same keys, opened in both ways.
func runIsolation(ctx context.Context, _ string, o options) (err error) {
	raw, err := newRawToken(ctx, "isolation", usedKeys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raw.close()) }()
	within, err := openEither(ctx, raw, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, within.Close(ctx)) }()
	apart, err := openEither(ctx, raw, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, apart.Close(ctx)) }()
	fmt.Println("\nThe module in this process and in one of its own: keystore's Encrypt of 32 bytes")
	for _, callers := range []int{1, 16} {
		var none, process float64
		measure := func(t *keystore.Token) func() (tally, error) {
			return func() (tally, error) { return encryptWith(ctx, t, callers, o.length) }
		}
		if err := alternate(o.rounds, []figure{{rate: &none, measure: measure(within)}, {rate: &process, measure: measure(apart)}}); err != nil {
			return err
		}
		fmt.Printf("%2d callers: %7.0f a second within, %7.0f apart: %3.0f %%, %.0f us more a call\n",
			callers, none, process, 100*process/none, float64(callers)*1e6*(1/process-1/none))
	}
	return nil
}

func openEither(ctx context.Context, raw *rawToken, isolated bool) (*keystore.Token, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	u, err := keystore.ParseURI("pkcs11:token=" + raw.label + "?module-path=" + raw.module)
	if err != nil {
		return nil, err
	}
	modules := &raw.modules
	if isolated {
		modules = &keystore.Modules{Command: []string{self, keystore.ModuleCommand}}
	}
	return keystore.Open(ctx, modules, keystore.Options{
		Name: raw.label, URI: u, Profile: keystore.Profiles()[0], Logger: slog.New(slog.DiscardHandler), Background: true, Isolated: isolated,
		PIN: func() (string, error) { return benchPIN, nil },
	})
}

func encryptWith(ctx context.Context, t *keystore.Token, callers int, length time.Duration) (tally, error) {
	return parallel(callers, length, func(worker int, more func() bool) error {
		k, err := t.Find(ctx, fmt.Sprintf("k%d", worker%usedKeys))
		if err != nil {
			return err
		}
		text, aad := make([]byte, 32), make([]byte, 32)
		for more() {
			if _, err := k.Encrypt(ctx, k.Newest(), text, aad); err != nil {
				return err
			}
		}
		return nil
	})
}
