package bench

import (
	"fmt"
	"io"
	"math"
)

// The picture's measures, in pixels.
const (
	pictureWidth = 1080
	margin       = 40
	axisRoom     = 64 // for the labels left of a chart
	cardTop      = 96 // the row of figures
	cardHeight   = 72
	chartTop     = 250 // of the first chart's area
	chartHeight  = 330
	chartStride  = 446 // from one chart's top to the next's
	footRoom     = 64
)

// WriteSVG writes the report as one picture that needs nothing from elsewhere:
// the main figures, the latency by percentile and the latency over time.
func (r *Report) WriteSVG(w io.Writer) error {
	_, err := io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?>`+"\n"+r.picture())
	return err
}

func (r *Report) picture() string {
	charts := 1
	if len(r.Timeline) > 0 {
		charts = 2
	}
	height := chartTop + (charts-1)*chartStride + chartHeight + footRoom
	var c canvas
	c.add(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="Latency of an XKS proxy" font-family="system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif" font-size="13" fill="%s">`,
		pictureWidth, height, pictureWidth, height, ink)
	c.add(`<style>.tick{font-size:12px;fill:%s}.halo{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}</style>`, muted)
	c.add(`<rect width="100%%" height="100%%" fill="#fff"/>`)
	c.text(margin, 48, `font-size="22" font-weight="600"`, "%s", r.title())
	c.text(margin, 72, `fill="`+muted+`"`, "%s", r.describe())
	c.text(pictureWidth-margin, 48, `class="tick" text-anchor="end"`, "%s", r.describeTime())
	r.cards(&c)

	f := r.chartFrame(0)
	f.heading(&c, "Latency by percentile", r.percentileLegend())
	r.percentileChart(&c, f)
	if charts == 2 {
		f = r.chartFrame(1)
		f.heading(&c, "Latency over time, by when requests were "+r.begun(), r.timeLegend())
		r.timeChart(&c, f)
	}
	c.add(`</svg>`)
	return c.String()
}

func (r *Report) title() string {
	if r.URL == "" {
		return "XKS proxy under load"
	}
	return shorten(r.URL, 56)
}

// shorten cuts the middle out of a text of more than n characters.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n/2] + "…" + s[len(s)-n/2:]
}

func (r *Report) chartFrame(i int) frame {
	f := frame{
		left: margin + axisRoom, top: float64(chartTop + i*chartStride),
		width: pictureWidth - 2*margin - axisRoom, height: chartHeight,
	}
	lowest := usualLowest(r.Curve)
	if r.Schedule != nil {
		lowest = min(lowest, usualLowest(r.Schedule.ServiceCurve))
	}
	f.fitLatency(lowest, r.Latency.MaxUS)
	return f
}

// usualLowest returns a latency that all but a few requests exceed: the very
// lowest, a single one, is not worth a decade of the axis.
func usualLowest(curve []CurvePoint) int64 {
	if len(curve) == 0 {
		return math.MaxInt64
	}
	return curve[min(1, len(curve)-1)].LatencyUS
}

// cards draws the row of main figures.
func (r *Report) cards(c *canvas) {
	l := r.Latency
	failedColour := ink
	if r.Failed > 0 {
		failedColour = red
	}
	withinColour := ink
	if r.Within.Beyond > 0 {
		withinColour = red
	}
	cards := []struct{ label, value, colour string }{
		{"answered / s", grouped(int64(math.Round(r.ThroughputPerSecond))), ink},
		{"p50", duration(l.P50US), ink},
		{"p99", duration(l.P99US), ink},
		{"p99.9", duration(l.P999US), ink},
		{"max", duration(l.MaxUS), ink},
		{"within 250 ms", percent(r.Within), withinColour},
		{"failed of " + grouped(r.Requests), grouped(r.Failed), failedColour},
	}
	const gap = 12.0
	width := (float64(pictureWidth-2*margin) - gap*float64(len(cards)-1)) / float64(len(cards))
	for i, card := range cards {
		x := margin + float64(i)*(width+gap)
		c.add(`<rect x="%.1f" y="%d" width="%.1f" height="%d" rx="8" fill="#f7f8fa" stroke="%s"/>`, x, cardTop, width, cardHeight, gridline)
		c.text(x+14, cardTop+26, `class="tick"`, "%s", card.label)
		size := 20
		if len(card.value) > 8 {
			size = 17
		}
		c.text(x+14, cardTop+54, fmt.Sprintf(`font-size="%d" font-weight="600" fill="%s"`, size, card.colour), "%s", card.value)
	}
}

// legendEntry explains one line of a chart.
type legendEntry struct{ label, style string }

// limitEntry explains the line of Limit.
const limitEntry = "AWS KMS gives up"

func (r *Report) percentileLegend() []legendEntry {
	legend := []legendEntry{{limitEntry, limitStyle}}
	if r.Schedule == nil {
		return legend
	}
	return append(legend,
		legendEntry{"from when a request was due", `stroke="` + blue + `" stroke-width="2.5"`},
		legendEntry{"from when it was sent", `stroke="` + grey + `" stroke-width="2" stroke-dasharray="2 5"`})
}

func (r *Report) timeLegend() []legendEntry {
	legend := []legendEntry{
		{limitEntry, limitStyle},
		{"p50", `stroke="` + blue + `" stroke-width="2.5"`},
		{"p99", `stroke="` + orange + `" stroke-width="2"`},
		{"max", `stroke="` + grey + `" stroke-width="1.5"`},
	}
	if r.Failed > 0 {
		legend = append(legend, legendEntry{"share failed", `stroke="` + red + `" stroke-opacity="0.25" stroke-width="10"`})
	}
	return legend
}

// heading draws a chart's title, and its legend at the right end.
func (f *frame) heading(c *canvas, title string, legend []legendEntry) {
	y := f.top - 26
	c.text(margin, y, `font-size="16" font-weight="600"`, "%s", title)
	x := f.right()
	for i := len(legend) - 1; i >= 0; i-- {
		// The width of text is not known here: this is enough for wide fonts.
		x -= 6.7*float64(len(legend[i].label)) + 4
		c.text(x, y, `class="tick"`, "%s", legend[i].label)
		c.line(x-34, y-4, x-8, y-4, legend[i].style)
		x -= 34 + 20
	}
}

// begun says from when on latency counts.
func (r *Report) begun() string {
	if r.Schedule == nil {
		return "sent"
	}
	return "due"
}

// describeTime says when the measurement was made and for how long.
func (r *Report) describeTime() string {
	return fmt.Sprintf("%s, %s", r.StartedAt.Format("2006-01-02 15:04:05 MST"), duration(int64(r.DurationSeconds*1e6)))
}
