package kmsapi

import (
	"log/slog"
	"net/http"
	"time"
	"unicode/utf8"
)

// maxLogged is the most bytes of a value of the peer's in the log.
const maxLogged = 2048

// log writes the line of the request: what is known of it, and never a
// plaintext, a ciphertext or a secret.
func (c *call) log(status int, took time.Duration) {
	logger, ctx := c.state.Logger, c.r.Context()
	level := level(status)
	if !logger.Enabled(ctx, level) {
		return
	}
	var room [16]slog.Attr
	attrs := append(room[:0], slog.String("requestId", c.id))
	add := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, shortened(value)))
		}
	}
	add("operation", c.action)
	add("region", c.region)
	if c.identity != nil {
		add("account", c.identity.caller.Account)
		add("principal", c.identity.caller.ARN)
	}
	add("accessKeyId", c.accessKeyID)
	add("key", c.key)
	if c.failure == nil {
		add("outcome", "ok")
	} else {
		add("outcome", c.failure.code)
		add("error", c.failure.message)
		if c.failure.cause != nil {
			attrs = append(attrs, slog.String("cause", c.failure.cause.Error()))
		}
	}
	attrs = append(attrs, slog.Int("status", status), slog.Int64("duration_us", took.Microseconds()))
	add("remote", c.r.RemoteAddr)
	logger.LogAttrs(ctx, level, "KMS request", attrs...)
}

// level is Error for what the operator must look into, Warn for what the peer
// did wrong.
func level(status int) slog.Level {
	switch {
	case status >= http.StatusInternalServerError:
		return slog.LevelError
	case status >= http.StatusBadRequest:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

func (c *call) observation(status int, took time.Duration) Observation {
	o := Observation{Operation: c.action, Status: status, Duration: took}
	if c.identity != nil {
		o.Region, o.Account = c.region, c.identity.caller.Account
	}
	if c.failure != nil {
		o.Code = c.failure.code
	}
	return o
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
