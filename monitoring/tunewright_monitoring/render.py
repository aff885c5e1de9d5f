"""Draw a dashboard from what a Prometheus has stored.

    python -m tunewright_monitoring.render --prometheus http://127.0.0.1:9090 --dashboard serving \
        --start 2026-01-02T03:00:00Z --end 2026-01-02T03:30:00Z --output docs/images/serving.svg

An output that ends in .png is drawn by rsvg-convert (Debian: librsvg2-bin).
"""

import argparse
import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tunewright_monitoring.dashboards import DASHBOARDS
from tunewright_monitoring.panels import Dashboard, Panel, fill
from tunewright_monitoring.picture import Line, Span, draw, legend

_SAMPLES = 240
_TIMEOUT = 60
# What runs beside us is not asked through a proxy of the environment.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RenderError(Exception):
    """Prometheus has no answer, or the picture cannot be written; the message says why."""


def collect(
    prometheus: str, dashboard: Dashboard, span: Span, values: Mapping[str, str], rate_interval: str
) -> dict[Panel, list[Line]]:
    """The samples of every panel. Panels that need a GPU are left out where they have none."""
    found = {}
    for panel in dashboard.panels:
        lines = [
            Line(legend(query, series["metric"]), [(at, float(value)) for at, value in series["values"]])
            for query in panel.queries
            for series in query_range(prometheus, fill(query.expr, dashboard, values, rate_interval), span)
        ]
        if lines or not panel.gpu:
            found[panel] = lines
    return found


def query_range(prometheus: str, query: str, span: Span) -> list[dict[str, Any]]:
    """The series of a query over the span. Raises RenderError."""
    asked = {"query": query, "start": span.start, "end": span.end, "step": span.step}
    url = f"{prometheus.rstrip('/')}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
    try:
        with _OPENER.open(url, timeout=_TIMEOUT) as response:
            series: list[dict[str, Any]] = json.load(response)["data"]["result"]
            return series
    except urllib.error.HTTPError as error:
        raise RenderError(f"Prometheus refused {query!r}: {error.read().decode(errors='replace')}") from error
    except (OSError, ValueError) as error:
        raise RenderError(f"Prometheus at {prometheus} does not answer: {error}") from error


def write(svg: str, output: Path) -> None:
    """Write the picture as SVG or PNG, by the ending of the file's name. Raises RenderError."""
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".svg":
        output.write_text(svg)
        return
    command = ["rsvg-convert", "--format", "png", "--output", str(output)]
    try:
        subprocess.run(command, input=svg, text=True, check=True, capture_output=True)
    except FileNotFoundError as error:
        raise RenderError(
            "rsvg-convert draws PNG files and is missing (Debian: librsvg2-bin); or ask for .svg"
        ) from error
    except subprocess.CalledProcessError as error:
        raise RenderError(f"rsvg-convert failed: {error.stderr.strip()}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    end = options.end or time.time()
    start = options.start or end - 3600
    span = Span(start, end, max(1.0, (end - start) / _SAMPLES))
    dashboard = DASHBOARDS[options.dashboard]
    try:
        lines = collect(options.prometheus, dashboard, span, dict(options.variable), options.rate_interval)
        write(draw(dashboard, lines, span), options.output)
    except RenderError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    empty = [panel.title for panel, found in lines.items() if not found]
    sys.stdout.write(f"wrote {options.output}" + (f"; without data: {', '.join(empty)}" if empty else "") + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tunewright_monitoring.render", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--prometheus", required=True, metavar="URL", help="base URL of the Prometheus")
    parser.add_argument("--dashboard", required=True, choices=DASHBOARDS, help="which one")
    parser.add_argument("--output", required=True, type=_picture, metavar="FILE", help="FILE.svg or FILE.png")
    parser.add_argument("--start", type=_moment, metavar="TIME", help="RFC 3339 or seconds since 1970; one hour ago")
    parser.add_argument("--end", type=_moment, metavar="TIME", help="the same; now")
    parser.add_argument("--rate-interval", default="1m", help="window of rates: at least four scrapes (%(default)s)")
    parser.add_argument(
        "--variable",
        type=_assignment,
        action="append",
        default=[],
        metavar="NAME=REGEX",
        help="a choice of the dashboard, such as namespace=team; everything if left out",
    )
    return parser


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".svg", ".png"):
        raise argparse.ArgumentTypeError(f"{text}: write a name that ends in .svg or .png")
    return path


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text}: write NAME=REGEX")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
