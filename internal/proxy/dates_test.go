package proxy

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/internal/config"
	"github.com/hyok-kms/hyok/internal/telemetry"
	"github.com/hyok-kms/hyok/internal/tlstest"
	"github.com/hyok-kms/hyok/xks"
)

// Of a certificate there is one warning at each of 30, 14, 7 and 1 days, and an
// error when it has expired; of a credential one when it is old. A renewed
// certificate starts anew.
func TestDates(t *testing.T) {
	dir := t.TempDir()
	ca := tlstest.NewCA(t)
	cert := ca.Issue(t, "localhost") // for an hour
	tlstest.WriteFiles(t, dir, "server", cert)
	expires := cert.Leaf.NotAfter
	c := &config.Config{
		Health:    config.Health{CredentialAge: 365 * day},
		Listeners: []config.Listener{{TLS: &config.TLS{Certificate: filepath.Join(dir, "server.crt"), ClientCA: filepath.Join(dir, "none.crt")}}},
		Stores: []config.Store{{Name: "prod", Credentials: []config.Credential{
			{Credential: xks.Credential{AccessKeyID: "OLD"}, Created: expires.Add(-370 * day)},
			{Credential: xks.Credential{AccessKeyID: "UNDATED"}},
		}}},
	}
	var out strings.Builder
	d := newDates(slog.New(slog.NewTextHandler(&out, nil)), telemetry.NewMetrics("test"))
	for _, step := range []struct {
		left                 time.Duration
		warnings, errs, olds int
	}{
		{31 * day, 0, 0, 0},
		{30 * day, 1, 0, 0},
		{29 * day, 0, 0, 0},
		{14 * day, 1, 0, 0},
		{6 * day, 1, 0, 0}, // the process did not run at 7
		{4 * day, 0, 0, 1},
		{time.Hour, 1, 0, 0},
		{0, 0, 1, 0},
		{-day, 0, 0, 0},
	} {
		out.Reset()
		d.look(c, expires.Add(-step.left))
		text := out.String()
		if w, e, o := strings.Count(text, "expires soon"), strings.Count(text, "has expired"), strings.Count(text, "is old"); w != step.warnings || e != step.errs || o != step.olds {
			t.Errorf("%v before: %d warnings, %d errors, %d old; want %+v\n%s", step.left, w, e, o, step, text)
		}
	}
	out.Reset()
	tlstest.WriteFiles(t, dir, "server", ca.Issue(t, "renewed"))
	d.look(c, expires.Add(-2*day))
	if !strings.Contains(out.String(), "CN=renewed") {
		t.Errorf("no warning of the renewed certificate:\n%s", &out)
	}
}
