package verify

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"sync"
)

// record keeps what was wrong with answers whatever they answered, over all
// checks of a run.
type record struct {
	mu       sync.Mutex // guards the following
	answers  int
	problems map[rule][]string
}

// rule is a requirement on every answer.
type rule int

const (
	contentType rule = iota
	errorTable
	errorMessage
	noRedirect
)

// add examines an answer. The answer to a GET is none of the API's: its body
// is not specified.
func (r *record) add(checkID string, c *call, a answer) {
	if c.method != http.MethodPost {
		return
	}
	found := map[rule]error{
		contentType:  wantJSONType(a),
		errorTable:   wantTableRow(a),
		errorMessage: wantPrintable(a),
		noRedirect:   wantNoRedirect(a),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers++
	if r.problems == nil {
		r.problems = map[rule][]string{}
	}
	for rule, err := range found {
		if err != nil {
			r.problems[rule] = append(r.problems[rule], fmt.Sprintf("%v (first in check %s)", err, checkID))
		}
	}
}

func wantJSONType(a answer) error {
	got := a.header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(got); err != nil || media != "application/json" {
		return fmt.Errorf("want Content-Type application/json, got %s with HTTP %d", shorten(got), a.status)
	}
	return nil
}

func wantTableRow(a answer) error {
	if a.status == http.StatusOK || wantNoRedirect(a) != nil {
		return nil
	}
	if name := a.errorName(); name.Status() != a.status {
		return fmt.Errorf("want an errorName of the table with its HTTP status, got %s", a.describe())
	}
	return nil
}

// maxMessage is the first length of errorMessage that is too long.
const maxMessage = 512

func wantPrintable(a answer) error {
	if a.status == http.StatusOK || !a.has("errorMessage") {
		return nil
	}
	message, err := a.text("errorMessage")
	if err != nil {
		return err
	}
	if len(message) >= maxMessage {
		return fmt.Errorf("want an errorMessage of less than %d characters, got %d", maxMessage, len(message))
	}
	for _, ch := range []byte(message) {
		if ch < 0x20 || ch > 0x7e {
			return fmt.Errorf("want printable ASCII as errorMessage, got %s", shorten(message))
		}
	}
	return nil
}

func wantNoRedirect(a answer) error {
	if a.status/100 == 3 {
		return fmt.Errorf("want no redirect, got %s", a.describe())
	}
	return nil
}

// answerChecks judge all answers of the run. They come last.
func answerChecks() []Check {
	check := func(id, section, title string, r rule) Check {
		return Check{ID: "answers." + id, Section: section, Title: title, Level: Must,
			run: func(ctx context.Context, p *prober) error { return p.ruleKept(ctx, r) }}
	}
	return []Check{
		check("content-type", secContentType, "every answer has Content-Type application/json", contentType),
		check("errors", secErrors, "every error has an errorName of the table and its HTTP status", errorTable),
		check("error-message", secErrors, "every errorMessage is printable ASCII of less than 512 characters", errorMessage),
		check("no-redirect", secErrors, "no answer is a redirect", noRedirect),
	}
}

// ruleKept makes a success and two errors of its own, in case no other check
// was selected.
func (p *prober) ruleKept(ctx context.Context, r rule) error {
	for _, a := range []answer{p.ask(ctx, health), p.ask(ctx, health, raw("{}")), p.ask(ctx, health, wrongSecret)} {
		if a.err != nil {
			return a.err
		}
	}
	p.record.mu.Lock()
	defer p.record.mu.Unlock()
	problems := p.record.problems[r]
	if len(problems) == 0 {
		return nil
	}
	return errors.New(problems[0] + fmt.Sprintf("; %d of %d answers", len(problems), p.record.answers))
}
