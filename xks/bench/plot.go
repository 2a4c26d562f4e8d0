package bench

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Colours of the pictures, all on white.
const (
	ink      = "#1f2937" // text, titles
	muted    = "#6b7280" // labels of axes
	hairline = "#eef0f3"
	gridline = "#dfe3e8"
	blue     = "#2563eb" // the latency that counts
	orange   = "#e07a1f" // p99 over time
	grey     = "#9aa3af" // what is there to compare
	red      = "#d12d36" // the limit, failures
)

// canvas collects the elements of an SVG picture.
type canvas struct{ strings.Builder }

func (c *canvas) add(format string, args ...any) {
	// A strings.Builder takes everything.
	_, _ = fmt.Fprintf(c, format+"\n", args...)
}

// text adds a line of text; style holds further attributes.
func (c *canvas) text(x, y float64, style, format string, args ...any) {
	c.add(`<text x="%.1f" y="%.1f" %s>%s</text>`, x, y, style, html.EscapeString(fmt.Sprintf(format, args...)))
}

func (c *canvas) line(x1, y1, x2, y2 float64, style string) {
	c.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`, x1, y1, x2, y2, style)
}

// point is a point of a picture, in its units.
type point struct{ x, y float64 }

// path adds a line through the points, broken at those that are NaN.
func (c *canvas) path(points []point, style string) {
	var d strings.Builder
	move := true
	for _, p := range points {
		if math.IsNaN(p.y) {
			move = true
			continue
		}
		command := 'L'
		if move {
			command = 'M'
		}
		_, _ = fmt.Fprintf(&d, "%c%.1f %.1f", command, p.x, p.y)
		move = false
	}
	if d.Len() > 0 {
		c.add(`<path d="%s" fill="none" stroke-linejoin="round" stroke-linecap="round" %s/>`, d.String(), style)
	}
}

// frame is the area of a chart with its scales: x linear, y a logarithmic axis
// of latencies.
type frame struct {
	left, top, width, height float64
	xMax                     float64
	loUS, hiUS               float64 // powers of ten, in microseconds
}

// fitLatency sets the y scale to whole decades around the latencies and Limit.
func (f *frame) fitLatency(minUS, maxUS int64) {
	lo := math.Floor(math.Log10(float64(min(max(minUS, 1), Limit.Microseconds()))))
	hi := math.Ceil(math.Log10(float64(max(maxUS, 2*Limit.Microseconds()))))
	f.loUS, f.hiUS = math.Pow(10, lo), math.Pow(10, hi)
}

func (f *frame) x(v float64) float64 { return f.left + v/f.xMax*f.width }

func (f *frame) y(us int64) float64 {
	v := min(max(float64(us), f.loUS), f.hiUS)
	return f.top + f.height*(1-math.Log10(v/f.loUS)/math.Log10(f.hiUS/f.loUS))
}

func (f *frame) bottom() float64 { return f.top + f.height }
func (f *frame) right() float64  { return f.left + f.width }

// latencyAxis draws the y axis.
func (f *frame) latencyAxis(c *canvas) {
	for decade := f.loUS; decade <= f.hiUS*1.01; decade *= 10 {
		for i := 2.0; i < 10 && decade < f.hiUS*0.99; i++ {
			y := f.y(int64(decade * i))
			c.line(f.left, y, f.right(), y, `stroke="`+hairline+`"`)
		}
		y := f.y(int64(decade))
		c.line(f.left, y, f.right(), y, `stroke="`+gridline+`"`)
		c.text(f.left-10, y+4, `class="tick" text-anchor="end"`, "%s", tick(int64(decade)))
	}
}

// limitStyle is the line of Limit, in charts and legends.
const limitStyle = `stroke="` + red + `" stroke-width="1.5" stroke-dasharray="6 4"`

// limit draws the line of Limit; its label stands on the axis, where no curve
// can cross it.
func (f *frame) limit(c *canvas) {
	y := f.y(Limit.Microseconds())
	c.line(f.left, y, f.right(), y, limitStyle)
	c.text(f.left-10, y+4, `text-anchor="end" font-size="12" font-weight="600" fill="`+red+`"`, "%d ms", Limit.Milliseconds())
}

// tick formats a power of ten of microseconds.
func tick(us int64) string {
	switch {
	case us >= 1e6:
		return strconv.FormatInt(us/1e6, 10) + " s"
	case us >= 1e3:
		return strconv.FormatInt(us/1e3, 10) + " ms"
	}
	return strconv.FormatInt(us, 10) + " µs"
}

// nines returns where a percentile is on the axis on which each further nine
// takes the same room: 0 for 0, 1 for 90, 2 for 99, 3 for 99.9.
func nines(percentile float64) float64 { return -math.Log10(1 - percentile/100) }

// percentileChart draws the curve of the latencies over their percentiles.
func (r *Report) percentileChart(c *canvas, f frame) {
	f.xMax = max(math.Log10(float64(max(r.Latency.Count, 1))), 1) * 1.02
	f.latencyAxis(c)
	for n := 0.0; n <= f.xMax; n++ {
		c.line(f.x(n), f.top, f.x(n), f.bottom(), `stroke="`+gridline+`"`)
		label := strconv.FormatFloat(100*(1-math.Pow(10, -n)), 'g', int(n)+1, 64)
		c.text(f.x(n), f.bottom()+20, `class="tick" text-anchor="middle"`, "%s %%", label)
	}
	c.text(f.x(nines(50)), f.bottom()+20, `class="tick" text-anchor="middle"`, "50 %%")
	c.line(f.x(nines(50)), f.top, f.x(nines(50)), f.bottom(), `stroke="`+gridline+`"`)
	if s := r.Schedule; s != nil {
		c.path(f.curve(s.ServiceCurve), `stroke="`+grey+`" stroke-width="2" stroke-dasharray="2 5"`)
	}
	main := f.curve(r.Curve)
	f.shade(c, main)
	f.limit(c)
	c.path(main, `stroke="`+blue+`" stroke-width="2.5"`)
	r.markPercentiles(c, &f)
}

func (f *frame) curve(curve []CurvePoint) []point {
	points := make([]point, 0, len(curve))
	for _, p := range curve {
		n := f.xMax
		if p.Percentile < 100 {
			n = nines(p.Percentile)
		}
		points = append(points, point{f.x(n), f.y(p.LatencyUS)})
	}
	return points
}

// shade fills the area below a curve.
func (f *frame) shade(c *canvas, points []point) {
	if len(points) == 0 {
		return
	}
	var d strings.Builder
	_, _ = fmt.Fprintf(&d, "M%.1f %.1f", points[0].x, f.bottom())
	for _, p := range points {
		_, _ = fmt.Fprintf(&d, "L%.1f %.1f", p.x, p.y)
	}
	_, _ = fmt.Fprintf(&d, "L%.1f %.1fZ", points[len(points)-1].x, f.bottom())
	c.add(`<path d="%s" fill="%s" fill-opacity="0.07"/>`, d.String(), blue)
}

// markPercentiles marks the usual percentiles on the curve, as far as there
// are requests to tell them apart from the maximum.
func (r *Report) markPercentiles(c *canvas, f *frame) {
	l := r.Latency
	for _, m := range []struct {
		name       string
		percentile float64
		us         int64
	}{
		{"p50", 50, l.P50US}, {"p90", 90, l.P90US}, {"p99", 99, l.P99US}, {"p99.9", 99.9, l.P999US}, {"p99.99", 99.99, l.P9999},
	} {
		// The floating-point log of 100/1 may be a hair over 2.
		if n := nines(m.percentile); l.Count > 0 && n <= math.Log10(float64(l.Count))+1e-9 {
			f.mark(c, f.x(n), m.us, m.name)
		}
	}
}

func (f *frame) mark(c *canvas, x float64, us int64, name string) {
	y := f.y(us)
	c.add(`<circle cx="%.1f" cy="%.1f" r="4.5" fill="#fff" stroke="%s" stroke-width="2.5"/>`, x, y, blue)
	// The curve rises to the right: there is room above it to the left and, at
	// the borders, below it.
	dx, dy, anchor := -9.0, -10.0, "end"
	if x-f.left < 90 {
		dx, dy, anchor = 4, 20, "start"
	} else if y-f.top < 24 {
		dy = 24
	}
	c.add(`<text x="%.1f" y="%.1f" class="halo" text-anchor="%s" font-size="12"><tspan fill="%s">%s</tspan><tspan dx="5" font-weight="600">%s</tspan></text>`,
		x+dx, y+dy, anchor, muted, name, duration(us))
}

// timeChart draws the latencies over the time at which requests were due.
func (r *Report) timeChart(c *canvas, f frame) {
	last := r.Timeline[len(r.Timeline)-1]
	f.xMax = last.AtSeconds + last.WidthSeconds
	f.latencyAxis(c)
	step := niceStep(f.xMax / 10)
	for t := 0.0; t <= f.xMax*1.0001; t += step {
		c.line(f.x(t), f.top, f.x(t), f.bottom(), `stroke="`+gridline+`"`)
		c.text(f.x(t), f.bottom()+20, `class="tick" text-anchor="middle"`, "%s s", strconv.FormatFloat(t, 'g', 6, 64))
	}
	f.failures(c, r.Timeline)
	f.limit(c)
	f.series(c, r.Timeline, func(p TimePoint) int64 { return p.MaxUS }, `stroke="`+grey+`" stroke-width="1.2"`)
	f.series(c, r.Timeline, func(p TimePoint) int64 { return p.P99US }, `stroke="`+orange+`" stroke-width="2"`)
	f.series(c, r.Timeline, func(p TimePoint) int64 { return p.P50US }, `stroke="`+blue+`" stroke-width="2.5"`)
}

func (f *frame) series(c *canvas, timeline []TimePoint, value func(TimePoint) int64, style string) {
	points := make([]point, len(timeline))
	for i, p := range timeline {
		points[i] = point{f.x(p.AtSeconds + p.WidthSeconds/2), math.NaN()}
		if p.Measured > 0 {
			points[i].y = f.y(value(p))
		}
	}
	c.path(points, style)
}

// failures draws a bar at the foot for each stretch of time with failures, as
// high as the share of its requests that failed.
func (f *frame) failures(c *canvas, timeline []TimePoint) {
	for _, p := range timeline {
		if p.Failed == 0 {
			continue
		}
		h := max(float64(p.Failed)/float64(p.Requests)*f.height, 3)
		c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" fill-opacity="0.18"/>`,
			f.x(p.AtSeconds), f.bottom()-h, p.WidthSeconds/f.xMax*f.width, h, red)
	}
}

// niceStep returns the next 1, 2 or 5 times a power of ten.
func niceStep(least float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(least)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= least*0.999 {
			return m * power
		}
	}
	return 10 * power
}
