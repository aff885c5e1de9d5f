"""Dashboards as Grafana imports them, and their queries."""

import itertools
import json
import re
from typing import Any

import pytest

from tunewright_monitoring.dashboards import DASHBOARDS
from tunewright_monitoring.panels import (
    COLUMNS,
    Dashboard,
    Kind,
    Panel,
    Query,
    Row,
    Unit,
    Variable,
    fill,
    place,
    queries,
    to_json,
)

Json = dict[str, Any]

PANEL = Panel("Loss", "Of the last step.", (Query('loss{team=~"$team"}', "{{name}}"),), Unit.SECONDS)
DASHBOARD = Dashboard(
    uid="x",
    title="X",
    description="All of X.",
    variables=(Variable("team", "Team", "up"), Variable("name", "Job", "up")),
    rows=(Row("Top", (PANEL, Panel("GPU", "", (Query("gpu", ""),), kind=Kind.LAST, gpu=True))),),
)
every_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)


def test_a_dashboard_as_grafana_imports_it() -> None:
    made = to_json(DASHBOARD)
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert made["panels"][:2] == [
        {"gridPos": {"x": 0, "y": 0, "w": 24, "h": 1}, "id": 1, "type": "row", "title": "Top"},
        {
            "gridPos": {"x": 0, "y": 1, "w": 8, "h": 8},
            "id": 2,
            "type": "timeseries",
            "title": "Loss",
            "description": "Of the last step.",
            "datasource": source,
            "targets": [
                {"refId": "A", "datasource": source, "expr": 'loss{team=~"$team"}', "legendFormat": "{{name}}"}
            ],
            "fieldConfig": {
                "defaults": {
                    "unit": "s",
                    "min": 0,
                    "custom": {"lineWidth": 2, "fillOpacity": 8, "showPoints": "auto", "spanNulls": False},
                },
                "overrides": [],
            },
            "options": {
                "legend": {"displayMode": "list", "placement": "bottom"},
                "tooltip": {"mode": "multi", "sort": "desc"},
            },
        },
    ]
    assert [one["query"] for one in made["templating"]["list"]] == [
        "prometheus",
        {"query": "label_values(up, team)", "refId": "values"},
        {"query": 'label_values(up{team=~"$team"}, name)', "refId": "values"},
    ]


def test_queries_have_their_variables_filled_in() -> None:
    assert queries(DASHBOARD) == ['loss{team=~".*"}', "gpu"]
    assert queries(DASHBOARD, {"team": "a|b"}, gpu=False) == ['loss{team=~"a|b"}']
    assert fill("rate(x[$__rate_interval])", DASHBOARD, rate_interval="4s") == "rate(x[4s])"


def test_panels_wrap() -> None:
    wide, narrow = Panel("", "", (), width=16, height=6), Panel("", "", (), width=8, height=8)
    placed = [(left, top) for _, left, top in place(Row("", (wide, narrow, wide, wide)))]
    assert placed == [(0, 0), (16, 0), (0, 8), (0, 14)]


@every_dashboard
def test_panels_do_not_overlap_and_stay_on_the_page(dashboard: Dashboard) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in to_json(dashboard)["panels"]:
        at = panel["gridPos"]
        covered = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert not covered & cells
        assert at["x"] + at["w"] <= COLUMNS
        cells |= covered


@every_dashboard
def test_ids_are_unique_and_the_source_is_a_choice(dashboard: Dashboard) -> None:
    made = to_json(dashboard)
    ids = [panel["id"] for panel in made["panels"]]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'"uid": "([^"]+)"', json.dumps(made))) == {dashboard.uid, "${datasource}"}
    assert "namespace" in [one["name"] for one in made["templating"]["list"]]


@every_dashboard
def test_every_panel_says_what_it_shows(dashboard: Dashboard) -> None:
    for panel in dashboard.panels:
        assert panel.queries
        assert panel.description.endswith(".")


@every_dashboard
def test_legends_name_labels_that_the_query_keeps(dashboard: Dashboard) -> None:
    for panel in dashboard.panels:
        for query in panel.queries:
            missing = [one for one in re.findall(r"\{\{(\w+)\}\}", query.legend) if not _keeps(query.expr, one)]
            assert missing == [], query


def _keeps(expr: str, label: str) -> bool:
    """A label is kept when the query aggregates by it, or reads a record as it is."""
    return label in expr or (" by (" not in expr and expr.startswith("tunewright:"))


def test_uids_never_change() -> None:
    assert {name: one.uid for name, one in DASHBOARDS.items()} == {
        "training": "tunewright-training",
        "serving": "tunewright-serving",
        "rollout": "tunewright-rollout",
    }
