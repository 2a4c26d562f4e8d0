package main

import (
	"strings"
	"testing"

	"github.com/hyok-kms/hyok/keystore"
)

func TestKeyReplicate(t *testing.T) {
	o := newOffice(t, "main", "spare")
	o.do(0, "key", "create", "pair", "--replicable", "--token", "main")
	o.do(0, "key", "rotate", "pair", "--token", "main")
	o.do(0, "key", "replicate", "pair", "--to", "spare", "--version", "1").
		expect(t, "1        enabled  copied", "Version 1 of the key pair is the same in the tokens main and spare.")
	var v replicateView
	got := o.do(0, "key", "replicate", "pair", "--from", "main", "--to", "spare", "-o", "json")
	got.decode(t, &v)
	if v.ID != "pair" || v.From != "main" || v.To != "spare" || len(v.Versions) != 2 || v.Versions[0].Made || !v.Versions[1].Made || v.Versions[1].Version != 2 {
		t.Errorf("%+v", v)
	}
	if len(v.Versions[0].Digest) != 64 || v.Versions[0].Digest == v.Versions[1].Digest {
		t.Errorf("%+v", v)
	}
	o.do(0, "key", "replicate", "pair", "--to", "main").
		expect(t, "1        enabled  there already  "+v.Versions[0].Digest[:shownDigest], "2        enabled  there already", "Key pair is the same in the tokens spare and main.")
	want := []string{"pair main 2 2 encrypt,decrypt enabled", "pair spare 2 2 encrypt,decrypt enabled"}
	if rows := o.list(); strings.Join(rows, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q", rows)
	}
}

func TestKeyReplicateRefuses(t *testing.T) {
	o := newOffice(t, "main", "spare", "third")
	o.do(0, "key", "create", "never", "--token", "main")
	o.do(0, "key", "create", "differs", "--replicable", "--token", "main")
	o.do(0, "key", "create", "differs", "--token", "spare")
	for _, test := range []struct {
		code int
		args []string
		want string
	}{
		{2, []string{"never"}, "--to says which"},
		{2, []string{"never", "--to", "spare"}, "--from says which"},
		{2, []string{"never", "--from", "spare", "--to", "spare"}, "the same token"},
		{2, []string{"never", "--from", "main", "--to", "spare", "--version", "0"}, "--version must be"},
		{2, []string{"never", "--from", "main", "--to", "spare", "--replicable=perhaps"}, "must be yes, trusted or no"},
		{2, []string{"a b", "--from", "main", "--to", "spare"}, "has a character outside"},
		{2, nil, "usage: hyok key replicate ID"},
		{1, []string{"never", "--from", "main", "--to", "nowhere"}, "nowhere"},
		{1, []string{"never", "--from", "main", "--to", "spare"}, "hyok key rotate --replicable"},
		{1, []string{"never", "--from", "third", "--to", "spare"}, "key not found"},
		{1, []string{"differs", "--from", "main", "--to", "spare"}, "keys differ: version 1 of the key differs in the tokens main and spare"},
		{1, []string{"differs", "--from", "main", "--to", "third", "--wrapping-key", "none"}, "no AES key with this label"},
	} {
		o.do(test.code, append([]string{"key", "replicate"}, test.args...)...).expect(t, test.want)
	}
	if rows := o.list(); len(rows) != 3 {
		t.Errorf("%q", rows)
	}
}

// Whether a key may leave its token is said when it is made, and told.
func TestReplicableKeys(t *testing.T) {
	o := newOffice(t, "main")
	for i, value := range []string{"no", "yes", "trusted"} {
		o.do(0, "key", "create", value, "--replicable="+value)
		o.do(0, "key", "rotate", value)
		var info keystore.KeyInfo
		o.do(0, "key", "show", value, "-o", "json").decode(t, &info)
		want := []keystore.Replicable{keystore.NotReplicable, keystore.ReplicableByAny, keystore.ReplicableByTrusted}[i]
		for _, v := range info.Versions {
			if v.Replicable() != want || !v.Sensitive {
				t.Errorf("%s: %+v", value, v)
			}
		}
	}
	o.do(0, "key", "rotate", "yes", "--replicable=no")
	text := strings.Join(strings.Fields(o.do(0, "key", "show", "yes").stdout), " ")
	if !strings.Contains(text, "REPLICABLE yes") || !strings.Contains(text, "REPLICABLE no") {
		t.Error(text)
	}
	o.write("k.hex", strings.Repeat("a5", 32))
	o.do(0, "key", "import", "imported", "--file", o.path("k.hex"), "--replicable")
	o.do(0, "key", "show", "imported").expect(t, "REPLICABLE")
}
