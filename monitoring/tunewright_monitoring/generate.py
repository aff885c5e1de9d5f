"""Write rules, dashboards and their reference: `python -m tunewright_monitoring.generate [--check]`.

With --check nothing is written, and the exit code is 1 when a file differs.
"""

import json
import sys

from tunewright_api.generate import run
from tunewright_monitoring.alerts import ALERTS
from tunewright_monitoring.dashboards import DASHBOARDS
from tunewright_monitoring.panels import to_json
from tunewright_monitoring.recording import RECORDINGS
from tunewright_monitoring.reference import metrics_reference
from tunewright_monitoring.rules import rule_file

RULES = "charts/tunewright/files/rules.yaml"
_HEADER = "{{/* Generated from monitoring/ by `make generate`. Do not edit. */ -}}\n"


def render() -> dict[str, str]:
    """Path below the repository -> content of every generated file."""
    files = {RULES: _HEADER + rule_file(RECORDINGS, ALERTS)}
    for name, dashboard in DASHBOARDS.items():
        files[f"charts/tunewright/files/dashboards/{name}.json"] = json.dumps(to_json(dashboard), indent=2) + "\n"
    files["docs/reference/metrics.md"] = metrics_reference()
    return files


if __name__ == "__main__":
    sys.exit(run("tunewright_monitoring.generate", __doc__, render()))
