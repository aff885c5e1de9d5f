"""A dashboard as data: its JSON for Grafana, and its queries with every variable filled in. Pure.

The JSON is Grafana's dashboard model: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Json = dict[str, Any]

COLUMNS = 24
_SCHEMA_VERSION = 39
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Grafana's own variable: at least four scrapes, so that a rate is never empty.
RATE_INTERVAL = "$__rate_interval"


class Unit(StrEnum):
    """How a value is written, by Grafana's names."""

    NUMBER = "short"
    SECONDS = "s"
    PERCENT = "percent"
    FRACTION = "percentunit"
    PER_SECOND = "reqps"
    SCIENTIFIC = "sci"
    BYTES = "bytes"


class Kind(StrEnum):
    """Lines over time, or the last value alone."""

    LINES = "timeseries"
    LAST = "stat"


@dataclass(frozen=True)
class Query:
    """PromQL, and the name of each of its lines with {{label}} filled in."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One picture of a dashboard. `gpu`: it stays empty without a GPU (and NVIDIA's DCGM exporter)."""

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: Unit = Unit.NUMBER
    kind: Kind = Kind.LINES
    width: int = 8
    height: int = 8
    gpu: bool = False


@dataclass(frozen=True)
class Row:
    """Panels below a heading; they fill the width from left to right and wrap."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the top: every value that `metric` has of the label `name`, and All. `label` is its heading."""

    name: str
    label: str
    metric: str

    @property
    def matcher(self) -> str:
        """What a query writes in braces to keep to the choice."""
        return f'{self.name}=~"${self.name}"'


@dataclass(frozen=True)
class Dashboard:
    """A page of panels. `uid` is part of its URL and never changes."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    @property
    def panels(self) -> Iterator[Panel]:
        """All panels, from the top."""
        return (panel for row in self.rows for panel in row.panels)


def queries(dashboard: Dashboard, values: Mapping[str, str] | None = None, *, gpu: bool = True) -> list[str]:
    """Every PromQL query of the dashboard, ready to be sent. `gpu=False` leaves out what needs a GPU.

    `values` are the variables' values, regular expressions; all objects where there is none.
    """
    wanted = (panel for panel in dashboard.panels if gpu or not panel.gpu)
    return [fill(query.expr, dashboard, values) for panel in wanted for query in panel.queries]


def fill(expr: str, dashboard: Dashboard, values: Mapping[str, str] | None = None, rate_interval: str = "1m") -> str:
    """The query with the dashboard's variables, and Grafana's interval of rates, replaced."""
    known = {variable.name: ".*" for variable in dashboard.variables} | dict(values or {})
    known[RATE_INTERVAL.removeprefix("$")] = rate_interval
    return re.sub(r"\$(\w+)", lambda found: known[found[1]], expr)


def to_json(dashboard: Dashboard) -> Json:
    """The dashboard as Grafana imports it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["tunewright"],
        "schemaVersion": _SCHEMA_VERSION,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_DATASOURCE_VARIABLE, *_variables(dashboard)]},
        "panels": _panels(dashboard),
    }


_DATASOURCE_VARIABLE: Json = {
    "name": "datasource",
    "label": "Prometheus",
    "type": "datasource",
    "query": "prometheus",
    "current": {},
    "hide": 0,
    "includeAll": False,
    "multi": False,
    "refresh": 1,
}


def _variables(dashboard: Dashboard) -> Iterator[Json]:
    """Each choice is narrowed by those before it."""
    narrowed: list[str] = []
    for variable in dashboard.variables:
        selector = f"{{{', '.join(narrowed)}}}" if narrowed else ""
        query = f"label_values({variable.metric}{selector}, {variable.name})"
        narrowed.append(variable.matcher)
        yield {
            "name": variable.name,
            "label": variable.label,
            "type": "query",
            "datasource": _DATASOURCE,
            "query": {"query": query, "refId": "values"},
            "current": {"text": "All", "value": "$__all"},
            "allValue": ".*",
            "includeAll": True,
            "multi": True,
            "refresh": 2,
            "sort": 1,
        }


def _panels(dashboard: Dashboard) -> list[Json]:
    found: list[Json] = []
    top = 0
    for row in dashboard.rows:
        found.append({**_place(0, top, COLUMNS, 1), "id": len(found) + 1, "type": "row", "title": row.title})
        top += 1
        for panel, left, down in place(row):
            where = _place(left, top + down, panel.width, panel.height)
            found.append({**where, "id": len(found) + 1, **_panel(panel)})
        top += height(row)
    return found


def place(row: Row) -> Iterator[tuple[Panel, int, int]]:
    """(panel, column, units below the heading) of each panel of the row."""
    left = top = tallest = 0
    for panel in row.panels:
        if left + panel.width > COLUMNS:
            left, top, tallest = 0, top + tallest, 0
        yield panel, left, top
        left, tallest = left + panel.width, max(tallest, panel.height)


def height(row: Row) -> int:
    """Units that the row's panels take."""
    return max(top + panel.height for panel, _, top in place(row))


def _place(x: int, y: int, w: int, h: int) -> Json:
    return {"gridPos": {"x": x, "y": y, "w": w, "h": h}}


def _panel(panel: Panel) -> Json:
    return {
        "type": panel.kind.value,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": _DATASOURCE, "expr": query.expr, "legendFormat": query.legend}
            for at, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": {"unit": panel.unit.value, "min": 0, **_LOOKS[panel.kind][0]}, "overrides": []},
        "options": _LOOKS[panel.kind][1],
    }


# field defaults and options of a kind
_LOOKS: dict[Kind, tuple[Json, Json]] = {
    Kind.LINES: (
        {"custom": {"lineWidth": 2, "fillOpacity": 8, "showPoints": "auto", "spanNulls": False}},
        {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
    ),
    Kind.LAST: (
        {"color": {"mode": "fixed", "fixedColor": "text"}},
        {
            "reduceOptions": {"calcs": ["lastNotNull"]},
            "textMode": "value_and_name",
            "graphMode": "area",
            "justifyMode": "auto",
        },
    ),
}
