package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore"
	"github.com/hyok-kms/hyok/softhsm"
)

// crashRounds is how often a crash test kills, unless HYOK_TEST_CRASH_ROUNDS says
// otherwise.
const crashRounds = 20

// TestCrashOfCommands kills, by SIGKILL and at a random instant, commands that
// change keys in tokens, the configuration and the files that it names, again and
// again on the same tokens and folder. All that was acknowledged must be there:
// keys in their states, what was encrypted under them, credentials, identities, key
// stores, tokens. What was about to change has its state of before or that of
// after, and the command can be repeated.
//
// HYOK_TEST_CRASH_ROUNDS sets the number of rounds, HYOK_TEST_CRASH_SEED what is
// random in them but for the instant; both are numbers.
func TestCrashOfCommands(t *testing.T) {
	rounds, seed := tokentest.Number(t, "HYOK_TEST_CRASH_ROUNDS", crashRounds), tokentest.Number(t, "HYOK_TEST_CRASH_SEED", int(time.Now().UnixNano()))
	t.Logf("HYOK_TEST_CRASH_SEED=%d", seed)
	r := newCrashRig(t, uint64(seed))
	for range rounds {
		r.round()
		if t.Failed() {
			return
		}
	}
	r.finish()
	t.Logf("%d rounds: %d commands killed in their midst, %d done before; %d acknowledged changes of %d keys and %d records checked, %d texts decrypted; %d changes done by a killed command, %d token files restored",
		rounds, r.killed, rounds-r.killed, r.acknowledged, len(r.keys), len(r.records), r.decrypted, r.silent, r.restored)
}

// crashRig is what outlives the killed commands.
type crashRig struct {
	*office
	rand    *rand.Rand
	keys    map[string]*crashKey
	records map[string]crashRecord // by name
	took    map[string]time.Duration
	names   int

	killed, acknowledged, silent, decrypted, restored int
}

// crashRecord is what the configuration or a file that it names, or a module, has
// one of.
type crashRecord struct {
	kind string // credential, identity, store or token
	gone bool
}

func newCrashRig(t *testing.T, seed uint64) *crashRig {
	t.Helper()
	o := newOffice(t, "main", "spare")
	text, err := os.ReadFile(o.path("hyok.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	o.write("hyok.yaml", string(text)+"kms:\n  token: spare\n  identities: credentials/kms.json\n  listeners:\n    - address: 127.0.0.1:8444\n      plain_http: true\n")
	o.do(0, "store", "create", "prod", "--token", "main", "--key-pattern", "*")
	o.do(0, "identity", "create", "--account", "111122223333")
	o.write("so-pin", "so-secret-1\n")
	return &crashRig{
		office: o, rand: rand.New(rand.NewPCG(seed, 0)), keys: map[string]*crashKey{},
		records: map[string]crashRecord{}, took: map[string]time.Duration{},
	}
}

// crashStep is one command and what it changes.
type crashStep struct {
	args []string
	// done takes over that it was done; output is nil if nobody was told.
	done func(output []byte)
	// seen looks whether a killed command was done, and reports what cannot be.
	seen func() bool
	// again: the command is repeated until it succeeds.
	again bool
}

// round kills one command, looks what it left, and checks everything.
func (r *crashRig) round() {
	r.t.Helper()
	s := r.next()
	output, complaints, finished := r.kill(s.args)
	// As each command of hyok does before it opens a token.
	restored, err := softhsm.KeepTokens()
	r.restored += len(restored)
	if err != nil {
		r.t.Errorf("after %v: %v", s.args, err)
	}
	r.t.Logf("%v: finished: %v", s.args, finished)
	switch {
	case finished && complaints != "":
		r.t.Fatalf("hyok %v failed: %s", s.args, complaints)
	case finished:
		r.acknowledged++
		s.done(output)
	default:
		r.killed++
		if s.seen() {
			r.silent++
			s.done(nil)
		}
	}
	r.check()
	if !finished && s.again {
		r.do(0, s.args...)
		s.done(nil)
		r.check()
	}
}

// kill runs a command and kills it some time between its start and the end that it
// usually has. It was finished if it had ended by itself.
func (r *crashRig) kill(args []string) (output []byte, complaints string, finished bool) {
	t := r.t
	t.Helper()
	kind := strings.Join(args[:2], " ")
	usual, known := r.took[kind]
	if !known {
		usual = 200 * time.Millisecond
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], append(args, "--data", r.dir)...)
	cmd.Env = tokentest.ChildEnv(programVariable + "=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Little happens in the first part of its time, when it is loaded.
	delay := usual/4 + time.Duration(r.rand.Int64N(int64(usual)))
	killer := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	killer.Stop()
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Exited() {
		if status, ok := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("hyok %v ended by %v: %s", args, exit, &stderr)
		}
		r.took[kind] = usual * 11 / 10 // or a slower machine would never let one finish
		return nil, "", false
	}
	r.took[kind] = time.Since(begin)
	if err != nil {
		return nil, err.Error() + ": " + stderr.String(), true
	}
	return stdout.Bytes(), "", true
}

// check checks all that is there.
func (r *crashRig) check() {
	r.t.Helper()
	r.do(0, "config", "check")
	r.checkFiles()
	r.checkRecords()
	r.checkKeys()
}

// checkFiles looks at the modes of the files and how many there are.
func (r *crashRig) checkFiles() {
	r.t.Helper()
	abandoned := 0
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			r.t.Errorf("%s has mode %v", path, info.Mode())
		}
		if strings.HasSuffix(path, "-tmp") {
			abandoned++
			past := time.Now().Add(-2 * time.Hour)
			err = errors.Join(err, os.Chtimes(path, past, past)) // the next writer in that folder removes it
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if abandoned > 2 { // one for each folder that is written to
		r.t.Errorf("%d temporary files were left and not removed", abandoned)
	}
}

// open opens a token in this process.
func (r *crashRig) open(token string, use func(context.Context, *keystore.Token)) {
	t := r.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o := tokentest.Options(r.uris[token])
	o.Name = token
	tok, err := keystore.Open(ctx, new(keystore.Modules), o)
	if err != nil {
		t.Fatal(err)
	}
	use(ctx, tok)
	if err := tok.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// finish enables what is disabled, so that all is checked.
func (r *crashRig) finish() {
	r.t.Helper()
	for id, k := range r.keys {
		if k.disabled {
			r.do(0, "key", "enable", id, "--token", "main")
			k.disabled = false
		}
	}
	r.check()
}
