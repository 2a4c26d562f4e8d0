package main

import (
	"fmt"
	"io"
	"os"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/hyok-kms/hyok/xks/bench"
)

// benchProgressSteps is the resolution of the bar: finer than a terminal is wide.
const benchProgressSteps = 1000

// benchProgress shows how far a load is, one bar a phase. On anything but a
// terminal it shows nothing.
type benchProgress struct {
	out   io.Writer // nil: not a terminal
	phase bench.Phase
	bar   *progressbar.ProgressBar
}

func newBenchProgress(w io.Writer) *benchProgress {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &benchProgress{out: w}
	}
	return &benchProgress{}
}

// update shows p.
func (b *benchProgress) update(p bench.Progress) {
	if b.out == nil {
		return
	}
	if p.Phase != b.phase {
		b.finish()
		b.phase = p.Phase
		b.bar = progressbar.NewOptions(benchProgressSteps,
			progressbar.OptionSetWriter(b.out),
			progressbar.OptionSetWidth(30),
			progressbar.OptionSetElapsedTime(false),
			progressbar.OptionSetPredictTime(false),
			progressbar.OptionFullWidth(),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionSetTheme(progressbar.ThemeUnicode),
		)
	}
	text := string(p.Phase)
	if p.Phase == bench.Measuring {
		text = fmt.Sprintf("%s: %d done, %d under way, %d failed", p.Phase, p.Done, max(p.Due-p.Done, 0), p.Failed)
	}
	b.bar.Describe(text)
	// A progress bar that cannot be drawn is no reason to stop measuring. The
	// last step is left to finish: it would make the next update start anew.
	_ = b.bar.Set(min(int(p.Fraction*benchProgressSteps), benchProgressSteps-1))
}

// finish wipes the bar.
func (b *benchProgress) finish() {
	if b.bar != nil {
		_ = b.bar.Clear() // as above
		b.bar = nil
	}
}
