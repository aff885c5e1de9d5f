"""The page's template (Jinja2, every value escaped but the drawn curves). It loads nothing from anywhere."""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{{ title }}</title>
<style>
:root { color-scheme: light; --line: #d0d7de; --soft: #57606a; --good: #1a7f37; --bad: #b42318; --mark: #ffe9a8; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; margin: 2rem auto; padding: 0 1rem; max-width: 68rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
p.lead, .soft { color: var(--soft); }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: var(--good); } .bad { color: var(--bad); }
pre { background: #f6f8fa; padding: .8rem; overflow-x: auto; white-space: pre-wrap; word-break: break-word; }
mark { background: var(--mark); }
.text { white-space: pre-wrap; word-break: break-word; }
.bar { width: 20rem; } .bar div { height: .9rem; margin-top: .3rem; background: #9ecae1; }
svg { max-width: 100%; height: auto; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="lead">{{ lead }}</p>

<h2>Evaluation</h2>
{% if figures %}
<p class="soft">{{ records }} held-out records.</p>
<table>
<tr><th>figure</th><th class="number">base</th><th class="number">tuned</th><th>change</th><th>gate</th></tr>
{% for figure in figures %}
<tr><td>{{ figure.name }}</td><td class="number">{{ figure.base }}</td><td class="number">{{ figure.tuned }}</td>
<td class="{{ figure.tone }}">{{ figure.change }}</td>
<td>{% if figure.gate %}<span class="{{ 'good' if figure.passed else 'bad' }}">\
{{ figure.gate }} {{ 'passed' if figure.passed else 'missed' }}</span>{% endif %}</td></tr>
{% endfor %}
</table>
{% else %}
<p class="soft">The model was not evaluated.</p>
{% endif %}
{% if tasks %}
<h3>lm-evaluation-harness</h3>
<table>
<tr><th>task</th><th>metric</th><th class="number">base</th><th class="number">tuned</th></tr>
{% for task in tasks %}
<tr><td>{{ task.task }}</td><td>{{ task.metric }}</td>
<td class="number">{{ task.base | number }}</td><td class="number">{{ task.tuned | number }}</td></tr>
{% endfor %}
</table>
{% endif %}

<h2>Curves</h2>
{% if curves %}{{ curves | safe }}{% else %}<p class="soft">There is no log of the steps.</p>{% endif %}

<h2>Data</h2>
{% if statistics %}
<table>
{% for name, value in statistics %}
<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</table>
{% endif %}
{% if lengths %}
<h3>Lengths</h3>
<table>
<tr><th class="number">tokens</th><th class="number">records</th><th></th></tr>
{% for length, count, percent in lengths %}
<tr><td class="number">{{ length }}</td><td class="number">{{ count }}</td>
<td class="bar"><div style="width: {{ '%.1f' % percent }}%"></div></td></tr>
{% endfor %}
</table>
{% endif %}
{% if examples %}
<h3>Examples</h3>
<p>Training records as the model reads them; the loss counts what is <mark>marked</mark>.</p>
{% for example in examples %}
<p class="soft">Line {{ example.line }}: {{ example.tokens }} tokens</p>
<pre>{% for segment in example.segments %}{% if segment.counted %}<mark>{{ segment.text }}</mark>{% else %}\
{{ segment.text }}{% endif %}{% endfor %}</pre>
{% endfor %}
{% endif %}

{% if samples %}
<h2>Samples</h2>
{% for sample in samples %}
<h3 class="text">{{ sample.prompt }}</h3>
<table>
<tr><th>base</th><td class="text">{{ sample.base }}</td></tr>
<tr><th>tuned</th><td class="text">{{ sample.tuned }}</td></tr>
</table>
{% endfor %}
{% endif %}

<h2>Configuration</h2>
<pre>{{ configuration }}</pre>

<h2>Environment</h2>
{% if environment %}
<table>
{% for name, value in environment.items() %}
<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</table>
{% else %}
<p class="soft">Not recorded.</p>
{% endif %}
</body>
</html>
"""
