package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/hyok-kms/hyok/engine"
	"github.com/hyok-kms/hyok/engine/store"
	"github.com/hyok-kms/hyok/keystore"
)

const (
	kmsAccount = "111122223333"
	kmsRegion  = "eu-central-1"
)

// node is an embedded KMS: a vault in a token, a store and an engine.
type node struct {
	path   string // of the store
	vault  *keystore.Vault
	store  *store.SQLite
	engine *engine.Engine
	client *engine.Client
}

// newNode opens an embedded KMS with a vault of a name, whose cache holds a number
// of keys (0: the usual one), and a store at path.
func newNode(ctx context.Context, t *rawToken, name string, cache int, path string) (*node, error) {
	n := &node{path: path}
	var err error
	if n.vault, err = t.open.OpenVault(ctx, keystore.VaultOptions{Name: name, CacheSize: cache}); err != nil {
		return nil, err
	}
	if err := n.open(ctx, t); err != nil {
		return nil, errors.Join(err, n.vault.Close())
	}
	return n, nil
}

// open opens the store and the engine.
func (n *node) open(ctx context.Context, t *rawToken) error {
	var err error
	if n.store, err = store.OpenSQLite(ctx, n.path, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	n.engine, err = engine.Open(ctx, engine.Config{Store: n.store, Token: t.open, Vault: n.vault})
	if err != nil {
		return errors.Join(err, n.store.Close())
	}
	n.client = n.engine.Client(kmsRegion, engine.Caller{
		Account: kmsAccount, ARN: "arn:aws:iam::" + kmsAccount + ":user/alice", UserID: "AIDAEXAMPLE",
	})
	return nil
}

// shut closes what open opened.
func (n *node) shut(ctx context.Context) error {
	return errors.Join(n.engine.Close(ctx), n.store.Close())
}

func (n *node) close(ctx context.Context) error {
	return errors.Join(n.shut(ctx), n.vault.Close())
}
