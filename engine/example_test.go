package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/softhsm"
)

// A KMS within a program, on a SoftHSM2 token and a database file.
func Example() {
	// SOFTHSM2_CONF names the file that softhsm.Configure has written.
	if err := helloWorld(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output: Hello World!
}

func helloWorld(ctx context.Context) (err error) {
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	const pin = "a user PIN, from wherever yours is"

	// A new token, once, and how to open it.
	module, err := softhsm.Module()
	if err != nil {
		return err
	}
	var modules keystore.Modules // one for the process
	if _, err := modules.InitToken(module, "", "example", "a security officer's PIN", pin); err != nil {
		return err
	}
	uri, err := keystore.ParseURI("pkcs11:token=example?module-path=" + module)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	token, err := keystore.Open(ctx, &modules, keystore.Options{
		Name: "main", URI: uri, Profile: keystore.Profiles()[0], // SoftHSM2's
		PIN:        func() (string, error) { return pin, nil },
		Background: true, Logger: logger,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, token.Close(ctx)) }()
	vault, err := token.OpenVault(ctx, keystore.VaultOptions{Name: "default"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vault.Close()) }()

	// The metadata, and the engine on all this.
	db, err := store.OpenSQLite(ctx, filepath.Join(folder, "kms.db"), logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	eng, err := engine.Open(ctx, engine.Config{Store: db, Token: token, Vault: vault, Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, eng.Close(ctx)) }()

	// From here on this is the official client's API.
	var client engine.API = eng.Client("eu-central-1", engine.Caller{
		Account: "111122223333", ARN: "arn:aws:iam::111122223333:user/alice",
	})
	key, err := client.CreateKey(ctx, &kms.CreateKeyInput{Description: aws.String("orders")})
	if err != nil {
		return err
	}
	sealed, err := client.Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyMetadata.KeyId, Plaintext: []byte("Hello World!")})
	if err != nil {
		return err
	}
	opened, err := client.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
	if err != nil {
		return err
	}
	fmt.Println(string(opened.Plaintext))
	return nil
}
