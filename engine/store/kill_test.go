package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if path, ok := os.LookupEnv("HYOK_TEST_STORE"); ok {
		fmt.Fprintln(os.Stderr, victim(path, os.Getenv("HYOK_TEST_ROUND")))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const (
	killRounds  = 20
	killWorkers = 8
)

// TestKill kills a process that changes the store, at a random instant, and opens
// what it left, again and again. Every set that was acknowledged must be there,
// and every set whole or not at all.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	var acknowledged []string
	for round := range killRounds {
		acknowledged = append(acknowledged, killOne(t, path, round)...)
		s := openAt(t, path)
		got, err := load(t, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range acknowledged {
			if got["left "+set] != padded(set) {
				t.Errorf("round %d: set %s was acknowledged and is lost", round, set)
			}
		}
		checkWhole(t, got)
		// The next process is to find a log, so this one must not empty it.
		if round%2 == 0 {
			closeStore(t, s)
		} else {
			abandon(t, s)
		}
	}
	if len(acknowledged) < killRounds*killWorkers {
		t.Errorf("only %d sets were acknowledged in %d rounds", len(acknowledged), killRounds)
	}
}

// killOne runs a victim, kills it after some acknowledgements and returns all that
// it gave.
func killOne(t *testing.T, path string, round int) []string {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "HYOK_TEST_STORE="+path, fmt.Sprint("HYOK_TEST_ROUND=", round))
	var complaints bytes.Buffer
	child.Stderr = &complaints
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var sets []string
	r := bufio.NewReader(out)
	for patience := killWorkers + rand.IntN(200); ; patience-- {
		if patience == 0 {
			if err := child.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
		line, err := r.ReadString('\n')
		if err == io.EOF {
			break // what is left of a line was not acknowledged
		} else if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, strings.TrimSuffix(line, "\n"))
	}
	var exit *exec.ExitError
	if err := child.Wait(); !errors.As(err, &exit) || exit.Exited() || complaints.Len() > 0 {
		t.Fatalf("the process was not killed: %v: %s", err, &complaints)
	}
	return sets
}

// abandon lets go of the file as a crash would, without emptying the log.
func abandon(t *testing.T, s *SQLite) {
	t.Helper()
	dir := t.TempDir()
	saved := filepath.Join(dir, "store.db")
	apply(t, s, change("round", "round", nil))
	copyFiles(t, s.path, saved)
	closeStore(t, s)
	copyFiles(t, saved, s.path)
}

// checkWhole fails where half a set is there. A set of a worker puts left and
// right of its number, counts itself, and deletes the spare of the one before.
func checkWhole(t *testing.T, got map[string]string) {
	t.Helper()
	last := map[string]int{}
	for id, data := range got {
		side, set, _ := strings.Cut(id, " ")
		other := map[string]string{"left": "right", "right": "left"}[side]
		if other == "" {
			continue
		}
		if data != padded(set) || got[other+" "+set] != data {
			t.Errorf("set %s is there by half", set)
		}
		worker, n, err := split(set)
		if err != nil {
			t.Fatal(err)
		}
		last[worker] = max(last[worker], n)
	}
	for worker, n := range last {
		if got["count "+worker] != strconv.Itoa(n) {
			t.Errorf("%s counted %s sets and made %d", worker, got["count "+worker], n)
		}
		for i := 1; i <= n; i++ {
			_, spare := got[fmt.Sprintf("spare %s/%d", worker, i)]
			_, made := got[fmt.Sprintf("left %s/%d", worker, i)]
			if !made || spare != (i == n) {
				t.Errorf("%s/%d: there %t, spare %t", worker, i, made, spare)
			}
		}
	}
}

func split(set string) (worker string, n int, err error) {
	worker, number, _ := strings.Cut(set, "/")
	n, err = strconv.Atoi(number)
	return worker, n, err
}

// padded is data of a set, of a length that differs among them.
func padded(set string) string {
	return strings.Repeat(set, 1+len(set)*int(set[len(set)-1]-'0'))
}

// victim changes the store until it is killed, and prints each set that was
// acknowledged. It empties the log and rewrites the file every few sets.
func victim(path, round string) error {
	s := newSQLite(path, slog.New(slog.DiscardHandler))
	s.checkpointAfter, s.logLimit = time.Millisecond, 64<<10
	if err := s.connect(); err != nil {
		return err
	}
	go s.run()
	failed := make(chan error)
	for w := range killWorkers {
		go func() { failed <- work(s, fmt.Sprintf("%s.%d", round, w)) }()
	}
	return <-failed
}

// out keeps lines whole.
var out sync.Mutex

func work(s *SQLite, worker string) error {
	for n := 1; ; n++ {
		set := fmt.Sprintf("%s/%d", worker, n)
		data := []byte(padded(set))
		err := s.Apply(context.Background(),
			change("key", "left "+set, data), change("usage", "count "+worker, []byte(strconv.Itoa(n))),
			change("intent", "spare "+set, data), remove("intent", fmt.Sprintf("spare %s/%d", worker, n-1)),
			change("alias", "right "+set, data))
		if err != nil {
			return err
		}
		out.Lock()
		fmt.Println(set)
		out.Unlock()
		if n%16 == 0 {
			if err := s.Scrub(); err != nil {
				return err
			}
		}
	}
}
