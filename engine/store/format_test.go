package store

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mattn/go-sqlite3"
)

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "store ?#%41.db") // a URI would take these for its own
	s := openAt(t, path)
	apply(t, s, change("key", "a", nil))
	for name, want := range map[string]fs.FileMode{
		filepath.Dir(dir): fs.ModeDir | 0o700, dir: fs.ModeDir | 0o700, path: 0o600, path + "-wal": 0o600,
	} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info, err, want)
		}
	}
	closeStore(t, s)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	openAt(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("opened again: %v, %v", info, err)
	}
}

func TestOpenedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openAt(t, path)
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, link} {
		if _, err := open(name); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), name) {
			t.Errorf("opened a second time as %s: %v, want ErrInUse with its name", name, err)
		}
	}
	apply(t, s, change("key", "a", []byte("one")))
	closeStore(t, s)
	expect(t, openAt(t, link), map[string]string{"a": "one"})
}

func TestOtherFormats(t *testing.T) {
	for name, c := range map[string]struct {
		sql  string
		want error
	}{
		"later version":   {"PRAGMA user_version = 2", ErrFormat},
		"earlier version": {"PRAGMA user_version = 0", ErrFormat},
		"another's":       {"PRAGMA application_id = 1", ErrFormat},
		"nobody's":        {"PRAGMA application_id = 0", ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			closeStore(t, openAt(t, path))
			alter(t, path, c.sql)
			refused(t, path, c.want)
		})
	}
	t.Run("no database", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "store.db")
		if err := os.WriteFile(path, []byte(strings.Repeat("Dear diary, ", 1000)), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, path, ErrCorrupt)
	})
	t.Run("folder", func(t *testing.T) {
		if _, err := open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a file") {
			t.Errorf("opened a folder: %v", err)
		}
	})
}

// TestOtherSchemas: a file whose schema is not exactly the store's is refused, and
// says what is strange.
func TestOtherSchemas(t *testing.T) {
	for name, c := range map[string]struct{ sql, says string }{
		"trigger":             {"CREATE TRIGGER undo AFTER UPDATE ON record BEGIN UPDATE record SET data = old.data, sum = old.sum WHERE number = new.number; END", `trigger "undo"`},
		"trigger on deletion": {"CREATE TRIGGER keep BEFORE DELETE ON record BEGIN SELECT RAISE(IGNORE); END", `trigger "keep"`},
		"view":                {"CREATE VIEW other AS SELECT * FROM record", `view "other"`},
		"view for a table": {"ALTER TABLE record RENAME TO hidden; CREATE VIEW record AS SELECT * FROM hidden WHERE kind <> 'key'",
			`view "record"`},
		"table":            {"CREATE TABLE more (a)", `table "more"`},
		"virtual table":    {"CREATE VIRTUAL TABLE words USING fts3(a)", `table "words"`},
		"statistics":       {"ANALYZE", `table "sqlite_stat1"`},
		"index":            {"CREATE INDEX more ON record (sum)", `index "more"`},
		"index missing":    {"DROP INDEX record_name", "no index record_name"},
		"index not unique": {"DROP INDEX record_name; CREATE INDEX record_name ON record (kind, id)", `index "record_name"`},
		"part of an index": {"DROP INDEX record_name; CREATE UNIQUE INDEX record_name ON record (kind, id) WHERE kind <> 'key'", `index "record_name"`},
		"column":           {"ALTER TABLE record ADD COLUMN more TEXT", `table "record"`},
		"computed column":  {"ALTER TABLE record ADD COLUMN more TEXT AS (upper(kind))", `table "record"`},
		"no table":         {"DROP TABLE record", "it has no"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			s := openAt(t, path)
			apply(t, s, change("key", "a", []byte("one")))
			closeStore(t, s)
			alter(t, path, c.sql)
			refused(t, path, ErrCorrupt)
			if _, err := open(path); !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), restore) {
				t.Errorf("it says %v, and not %s", err, c.says)
			}
		})
	}
}

// The connection of an open store does what the store does, and nothing else.
func TestStatementsAreBounded(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "store.db"))
	for _, statement := range []string{
		"CREATE TABLE more (a)", "CREATE TEMP TABLE more (a)", "CREATE VIEW v AS SELECT 1", "DROP INDEX record_name", "ALTER TABLE record RENAME TO other",
		"CREATE TRIGGER undo AFTER UPDATE ON record BEGIN DELETE FROM record; END", "CREATE TEMP TRIGGER undo AFTER UPDATE ON record BEGIN DELETE FROM record; END",
		"ATTACH 'file:other.db' AS other", "PRAGMA writable_schema = ON", "PRAGMA journal_mode = OFF", "UPDATE sqlite_schema SET sql = ''", "SELECT load_extension('x')",
	} {
		s.mu.Lock()
		_, err := s.conn.Exec(statement, nil)
		s.mu.Unlock()
		if err == nil || !strings.Contains(err.Error(), "not authorized") && !strings.Contains(err.Error(), "may not be modified") {
			t.Errorf("%s: %v", statement, err)
		}
	}
	apply(t, s, change("key", "a", []byte("one")))
	if err := s.Scrub(); err != nil {
		t.Error(err)
	}
	expect(t, s, map[string]string{"a": "one"})
}

// refused fails if the file is opened, or changed by trying.
func refused(t *testing.T, path string, want error) {
	t.Helper()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(path); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
		t.Errorf("opened: %v, want %v with the file's name", err, want)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("opening changed the file (%v)", err)
	}
}

func testNotWritable(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	closeStore(t, openAt(t, path))
	for _, c := range []struct {
		name string
		mode fs.FileMode
		back fs.FileMode
	}{{dir, 0o500, 0o700}, {path, 0o400, 0o600}} {
		if err := os.Chmod(c.name, c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := open(path); err == nil || !strings.Contains(err.Error(), "cannot be written") {
			t.Errorf("%s with mode %v: %v", c.name, c.mode, err)
		}
		if err := os.Chmod(c.name, c.back); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, openAt(t, path), map[string]string{})
}

// TestDamage turns one byte, here and there, and expects all records or an error.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	s := openAt(t, path)
	want := map[string]string{}
	for i := range 60 {
		id := fmt.Sprintf("%d-%d", i*7919%60, i)
		want[id] = strings.Repeat(id, 50+i%40)
		apply(t, s, change("key", id, []byte(want[id])))
	}
	closeStore(t, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	noticed := 0
	for i := range 400 {
		at := random.IntN(len(whole))
		if i < 200 {
			at = i // the header and the schema
		}
		bit := byte(1) << random.IntN(8)
		whole[at] ^= bit
		damaged := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(damaged, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		whole[at] ^= bit
		got, err := contents(t, damaged)
		if err != nil {
			noticed++
		} else if !maps.Equal(got, want) {
			t.Errorf("byte %d turned by %#x: %d records without an error", at, bit, len(got))
		}
	}
	if noticed < 150 {
		t.Errorf("only %d of 400 damages were noticed", noticed)
	}
}

func contents(t *testing.T, path string) (map[string]string, error) {
	s, err := open(path)
	if err != nil {
		return nil, err
	}
	defer closeStore(t, s)
	return load(t, s)
}

// alter changes a closed store by other means.
func alter(t *testing.T, path, sql string) {
	t.Helper()
	conn, err := (&sqlite3.SQLiteDriver{}).Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.(*sqlite3.SQLiteConn).Exec(sql, nil); err != nil {
		t.Error(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}
