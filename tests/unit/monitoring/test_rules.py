"""Rules as code: what they are made of, and the Helm template that they make."""

import re

import pytest

from tunewright_monitoring import names
from tunewright_monitoring.alerts import ALERTS
from tunewright_monitoring.generate import render
from tunewright_monitoring.recording import RECORDINGS
from tunewright_monitoring.reference import VLLM, operator_metrics, sample_name, server_metrics, trainer_metrics
from tunewright_monitoring.rules import Alert, Recording, Severity, rule_file

# Exporters of others.
FOREIGN = {names.GPU_MEMORY_USED, names.GPU_MEMORY_FREE, names.GPU_UTILIZED, names.POD_RESTARTS}


def test_the_rule_file_is_a_helm_template() -> None:
    recording = Recording("tunewright:x", 'sum by (pod) (rate(x{a="b"}[5m]))', "X.")
    alert = Alert(
        name="TunewrightX",
        severity=Severity.WARNING,
        expr="tunewright:x > ${limit}",
        hold="${minutes}m",
        summary="{{ $labels.pod }}: {{ $value }} is more than ${limit}.",
    )
    assert rule_file([recording], [alert]) == (
        "groups:\n"
        "  - name: tunewright\n"
        "    rules:\n"
        "      - record: tunewright:x\n"
        '        expr: sum by (pod) (rate(x{a="b"}[5m]))\n'
        '      {{- if not (has "TunewrightX" .Values.monitoring.disabledAlerts) }}\n'
        "      - alert: TunewrightX\n"
        "        expr: tunewright:x > {{ .Values.monitoring.thresholds.limit }}\n"
        "        for: {{ .Values.monitoring.thresholds.minutes }}m\n"
        "        labels:\n"
        "          severity: warning\n"
        "        annotations:\n"
        '          summary: \'{{ "{{" }} $labels.pod }}: {{ "{{" }} $value }} is more than '
        "{{ .Values.monitoring.thresholds.limit }}.'\n"
        '          runbook_url: {{ .Values.monitoring.runbookUrl | trimSuffix "/" }}/TunewrightX.md\n'
        "      {{- end }}\n"
    )
    assert alert.thresholds == {"limit", "minutes"}


def exported() -> set[str]:
    """Names that a query finds, of all metrics of ours and those of vLLM that the contract has."""
    families = [family for family, _ in (*operator_metrics(), *trainer_metrics(), *server_metrics())]
    return {sample_name(family) for family in families} | set(VLLM)


def test_every_name_is_that_of_a_metric_that_somebody_exports() -> None:
    ours = {
        value
        for key, value in vars(names).items()
        if key.isupper() and isinstance(value, str) and re.match(r"tunewright_|vllm:", value)
    }
    assert ours - exported() == set()


def test_rules_ask_for_nothing_else() -> None:
    known = exported() | FOREIGN | {rule.record for rule in RECORDINGS}
    for expr in (*(rule.expr for rule in RECORDINGS), *(alert.expr for alert in ALERTS)):
        asked = re.findall(r"\b(?:tunewright[_:]|vllm:|DCGM_|kube_)[\w:]+", expr)
        assert {name.removesuffix("_bucket") for name in asked} <= known, expr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_names_whom_it_is_about(alert: Alert) -> None:
    assert re.fullmatch(r"Tunewright[A-Z]\w+", alert.name)
    assert alert.summary.endswith(".")
    by = set(re.findall(r"\$labels\.(\w+)", alert.summary))
    assert by or alert.name == "TunewrightOperatorDown"


def test_names_are_used_once() -> None:
    used = [*(rule.record for rule in RECORDINGS), *(alert.name for alert in ALERTS)]
    assert len(used) == len(set(used))


def test_everything_generated_is_the_same_twice() -> None:
    assert render() == render()
