"""Rules, alerts and dashboards as code. Nothing of it runs in a cluster: `make generate` writes it into the chart.

names       metrics that are asked for, by the part that exports them
rules       a recording rule, an alert, and the rule file they make      pure
recording   the recording rules
alerts      the alerts
panels      a dashboard, its JSON for Grafana, and its queries           pure
dashboards/ training, serving, rollout
reference   the reference page of all of these
generate    writes the files
picture     a dashboard with its samples -> SVG                          pure
render      draws a dashboard from a Prometheus
"""
