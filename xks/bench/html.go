package bench

import (
	"html/template"
	"io"
)

// page is the HTML report: the picture, and below it what a picture shows badly.
const page = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>hyok xks bench: {{.Title}}</title>
<style>
body { margin: 0; background: #f3f4f6; color: #1f2937; font: 14px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; }
main { max-width: 1080px; margin: 32px auto; background: #fff; border-radius: 12px; box-shadow: 0 1px 4px rgba(0,0,0,.12); overflow: hidden; }
svg { display: block; width: 100%; height: auto; }
section { padding: 0 40px 28px; overflow-x: auto; }
h2 { font-size: 16px; margin: 0 0 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: #6b7280; }
th, td { padding: 6px 20px 6px 0; border-bottom: 1px solid #dfe3e8; vertical-align: top; }
.n { text-align: right; white-space: nowrap; }
code { font: 12px ui-monospace, 'DejaVu Sans Mono', monospace; overflow-wrap: anywhere; }
li { margin-bottom: 6px; }
footer { padding: 0 40px 28px; color: #6b7280; }
</style>
</head>
<body>
<main>
{{.Picture}}
{{with .Report.Notes}}<section><h2>Notes</h2><ul>{{range .}}<li>{{.}}</li>{{end}}</ul></section>{{end}}
{{with .Report.Errors}}<section><h2>Errors</h2>
<table><tr><th>name</th><th>kind</th><th class="n">count</th><th>example</th></tr>
{{range .}}<tr><td>{{.Name}}</td><td>{{.Kind}}</td><td class="n">{{count .Count}}</td><td><code>{{.Example}}</code></td></tr>
{{end}}</table></section>{{end}}
<section><h2>Latency</h2>
<table><tr><th></th><th class="n">mean</th><th class="n">p50</th><th class="n">p90</th><th class="n">p99</th><th class="n">p99.9</th><th class="n">p99.99</th><th class="n">max</th></tr>
{{define "latency"}}<td class="n">{{mean .MeanUS}}</td><td class="n">{{us .P50US}}</td><td class="n">{{us .P90US}}</td><td class="n">{{us .P99US}}</td><td class="n">{{us .P999US}}</td><td class="n">{{us .P9999}}</td><td class="n">{{us .MaxUS}}</td>{{end -}}
<tr><td>from {{.Begun}}</td>{{template "latency" .Report.Latency}}</tr>
{{with .Report.Schedule}}<tr><td>from sent</td>{{template "latency" .Service}}</tr>{{end}}
</table></section>
{{with .Report.Schedule}}<section><h2>Schedule</h2>
<table><tr><th class="n">due</th><th class="n">sent</th><th class="n">of these late, no connection free</th><th class="n">never sent</th><th class="n">own lateness p50</th><th class="n">p99</th><th class="n">max</th></tr>
<tr><td class="n">{{count .Scheduled}}</td><td class="n">{{count .Sent}}</td><td class="n">{{count .Queued}}</td><td class="n">{{count .Unsent}}</td><td class="n">{{us .LagP50US}}</td><td class="n">{{us .LagP99US}}</td><td class="n">{{us .LagMaxUS}}</td></tr>
</table></section>{{end}}
{{with .Report.Slowest}}<section><h2>Slowest requests</h2>
<table><tr><th>kmsRequestId</th><th class="n">{{$.Begun}} at</th><th class="n">from {{$.Begun}}</th><th class="n">from sent</th><th>error</th></tr>
{{range .}}<tr><td><code>{{.KMSRequestID}}</code></td><td class="n">{{printf "%.3f s" .DueSeconds}}</td><td class="n">{{us .LatencyUS}}</td><td class="n">{{us .ServiceUS}}</td><td>{{.Error}}</td></tr>
{{end}}</table></section>{{end}}
<footer>{{.When}}</footer>
</main>
</body>
</html>
`

// WriteHTML writes the report as one page that needs nothing from elsewhere: no
// scripts, fonts or pictures.
func (r *Report) WriteHTML(w io.Writer) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"us":    duration,
		"mean":  func(us float64) string { return duration(int64(us + 0.5)) },
		"count": grouped,
	}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, struct {
		Report             *Report
		Title, When, Begun string
		Picture            template.HTML
	}{
		Report: r, Title: r.title(), When: r.describeTime(), Begun: r.begun(),
		Picture: template.HTML(r.picture()), // ours; each text in it is escaped
	})
}
