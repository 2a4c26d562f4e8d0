package xks

import (
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// maxLogged is the most bytes of a value of the peer's in the log.
const maxLogged = 2048

// log writes the line of the request: every value that is known of it, and
// never a plaintext. Values of an unauthenticated body are never parsed, so
// they are never logged either.
func (c *call) log(logger *slog.Logger, status int, took time.Duration) {
	level := c.level()
	if !logger.Enabled(c.r.Context(), level) {
		return
	}
	var room [24]slog.Attr
	l := line{attrs: room[:0]}
	l.text("store", c.storeName())
	l.text("operation", string(c.route.op))
	l.text("key", shortened(c.route.key))
	m := &c.in.RequestMetadata
	l.member("kmsRequestId", m.RequestID)
	l.member("kmsOperation", m.Operation)
	l.member("principal", m.PrincipalARN)
	l.member("kmsKeyArn", m.KeyARN)
	l.member("via", m.ViaService)
	l.member("vpc", m.SourceVPC)
	l.member("vpce", m.SourceVPCE)
	l.text("accessKeyId", c.accessKeyID)
	c.logOutcome(&l, status)
	l.text("token", c.token)
	if c.version != 0 {
		l.add(slog.Uint64("version", uint64(c.version)))
	}
	if c.state.LogCiphertext {
		c.logCiphertext(&l)
	}
	l.add(slog.Int64("duration_us", took.Microseconds()))
	l.text("remote", c.r.RemoteAddr)
	logger.LogAttrs(c.r.Context(), level, "request", l.attrs...)
}

// level is Error for what the operator must look into, Warn for what the peer
// did wrong.
func (c *call) level() slog.Level {
	switch c.errorName() {
	case "":
		return slog.LevelInfo
	case InternalException, DependencyTimeoutException:
		return slog.LevelError
	}
	return slog.LevelWarn
}

func (c *call) logOutcome(l *line, status int) {
	outcome := "ok"
	if c.err != nil {
		outcome = string(c.err.Name)
	}
	l.text("outcome", outcome)
	l.add(slog.Int("status", status))
	if c.err == nil {
		return
	}
	l.text("error", c.err.Message)
	if c.err.Cause != nil {
		l.add(slog.String("cause", c.err.Cause.Error()))
	}
}

func (c *call) logCiphertext(l *line) {
	l.text("ciphertext", c.base64.EncodeToString(c.sealed.Ciphertext))
	l.text("iv", c.base64.EncodeToString(c.sealed.IV))
	l.text("tag", c.base64.EncodeToString(c.sealed.Tag))
	l.text("metadata", c.base64.EncodeToString(c.metadata))
}

// line gathers the attributes of a log line.
type line struct{ attrs []slog.Attr }

func (l *line) add(attr slog.Attr) { l.attrs = append(l.attrs, attr) }

// text adds a value that is not empty.
func (l *line) text(name, value string) {
	if value != "" {
		l.add(slog.String(name, value))
	}
}

// member adds the text of a JSON string, shortened.
func (l *line) member(name string, v jsontext.Value) {
	if len(v) <= len(`""`) || v[0] != '"' {
		return
	}
	value := string(v[1 : len(v)-1])
	if strings.IndexByte(value, '\\') >= 0 {
		unquoted, err := jsontext.AppendUnquote(nil, v)
		if err != nil {
			return
		}
		value = string(unquoted)
	}
	l.text(name, shortened(value))
}

// shortened cuts a value to maxLogged bytes, between two characters.
func shortened(s string) string {
	if len(s) <= maxLogged {
		return s
	}
	n := maxLogged
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
