"""A recording rule, an alert, and the rule file that they make. Pure.

The rule file is a Helm template: `${name}` in an alert stands for the chart value `monitoring.thresholds.name`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

_THRESHOLD = re.compile(r"\$\{(\w+)\}")


class Severity(StrEnum):
    """Critical: users feel it now, somebody is called. Warning: somebody looks at it today."""

    CRITICAL = "critical"
    WARNING = "warning"


@dataclass(frozen=True)
class Recording:
    """A query whose answer is stored under a name of its own."""

    record: str
    expr: str
    help: str


@dataclass(frozen=True)
class Alert:
    """A condition that somebody is told of once it has held for the time `hold`.

    `summary` names the object, `needs` the exporter without which the alert never fires.
    """

    name: str
    severity: Severity
    expr: str
    hold: str
    summary: str
    needs: str = ""

    @property
    def thresholds(self) -> frozenset[str]:
        """Chart values that it depends on."""
        return frozenset(_THRESHOLD.findall(self.expr + self.hold + self.summary))


def rule_file(recordings: Iterable[Recording], alerts: Sequence[Alert]) -> str:
    """The Helm template of the rule file.

    One group: its rules are evaluated in their order, so that alerts see the records of the same moment.
    """
    lines = ["groups:", "  - name: tunewright", "    rules:"]
    for recording in recordings:
        lines += _item({"record": recording.record, "expr": recording.expr})
    for alert in alerts:
        lines.append(f'      {{{{- if not (has "{alert.name}" .Values.monitoring.disabledAlerts) }}}}')
        lines += _item(_alert(alert))
        lines.append("      {{- end }}")
    return "\n".join(lines) + "\n"


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        **({"for": alert.hold} if alert.hold else {}),
        "labels": {"severity": alert.severity.value},
        "annotations": {
            "summary": alert.summary,
            "runbook_url": f"${{runbooks}}/{alert.name}.md",
        },
    }


def _item(rule: dict[str, Any]) -> list[str]:
    text = _to_helm(yaml.safe_dump(rule, sort_keys=False, width=10_000))
    first, *rest = text.splitlines()
    return [f"      - {first}", *(f"        {line}".rstrip() for line in rest)]


def _to_helm(text: str) -> str:
    """Braces of Prometheus' templates are kept from Helm, and thresholds become chart values."""
    text = text.replace("{{", '{{ "{{" }}')
    text = text.replace("${runbooks}", '{{ .Values.monitoring.runbookUrl | trimSuffix "/" }}')
    return _THRESHOLD.sub(r"{{ .Values.monitoring.thresholds.\1 }}", text)
