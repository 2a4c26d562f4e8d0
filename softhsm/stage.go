package softhsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Stage has create make tokens, each of which appears in dir, a folder that
// Configure has prepared, once it is whole. SoftHSM2 makes a token step by step: a
// process that is killed meanwhile would leave one that nobody can log in to.
//
// It sets the environment that create is to load the module with, and again what
// was there afterwards. Of two processes one must wait for the other.
func Stage(dir string, create func() error) (err error) {
	staging := filepath.Join(dir, "tokens.new")
	if err := os.RemoveAll(staging); err != nil { // a killed process's
		return fmt.Errorf("clear SoftHSM2's staging folder: %w", err)
	}
	conf, err := Configure(staging)
	if err != nil {
		return err
	}
	before, set := os.LookupEnv(ConfigVariable)
	if err := os.Setenv(ConfigVariable, conf); err != nil {
		return fmt.Errorf("set %s: %w", ConfigVariable, err)
	}
	err = create()
	if set {
		err = errors.Join(err, os.Setenv(ConfigVariable, before))
	} else {
		err = errors.Join(err, os.Unsetenv(ConfigVariable))
	}
	if err != nil {
		return err
	}
	return moveTokens(filepath.Join(staging, "tokens"), filepath.Join(dir, "tokens"), staging)
}

// moveTokens moves the folders of tokens, and removes what is left of staging. What
// they hold is on the disk before they move.
func moveTokens(from, to, staging string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("look for the new SoftHSM2 token: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(from, e.Name())
		if err := syncAll(path); err != nil {
			return fmt.Errorf("sync the new SoftHSM2 token: %w", err)
		}
		if err := os.Rename(path, filepath.Join(to, e.Name())); err != nil {
			return fmt.Errorf("put the new SoftHSM2 token in place: %w", err)
		}
	}
	if err := syncPath(to); err != nil {
		return fmt.Errorf("sync SoftHSM2's token folder: %w", err)
	}
	return os.RemoveAll(staging)
}

// syncAll syncs a folder and the files in it.
func syncAll(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := syncPath(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return syncPath(dir)
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
