"""The chart's rules, dashboards and monitors: what the real promtool and the real Prometheus make of them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.monitoring import promtool, rules
from tests.chart.rule_cases import ALERTS as ALERT_CASES
from tests.chart.rule_cases import RECORDS, Fires, Record, sample
from tests.helm import CHART, NAMESPACE, HelmError, helm, of_kind, rendered, template
from tunewright_monitoring.alerts import ALERTS
from tunewright_monitoring.dashboards import DASHBOARDS
from tunewright_monitoring.panels import to_json
from tunewright_monitoring.recording import RECORDINGS

Object = dict[str, Any]

SEVERITY = {alert.name: alert.severity.value for alert in ALERTS}
RUNBOOKS = "docs/runbooks"


def run_cases(directory: Path, *tests: Object) -> None:
    """promtool test rules."""
    (directory / "rules.yaml").write_text(rules())
    suite = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": list(tests)}
    (directory / "tests.yaml").write_text(yaml.safe_dump(suite))
    promtool("test", "rules", directory / "tests.yaml")


def given(case: Record | Fires) -> Object:
    """The series of a case."""
    series = [{"series": name, "values": values} for name, values in case.series.items()]
    return {"interval": "1m", "name": case.id, "input_series": series}


@pytest.mark.parametrize("case", RECORDS, ids=lambda case: case.id)
def test_a_recording_rule_says(case: Record, tmp_path: Path) -> None:
    want = [{"labels": sample("", **labels), "value": value} for labels, value in case.want]
    asked = {"expr": f"round({case.record}, 0.001)", "eval_time": case.at, "exp_samples": want}
    run_cases(tmp_path, {**given(case), "promql_expr_test": [asked]})


@pytest.mark.parametrize("case", ALERT_CASES, ids=lambda case: f"{case.alert}: {case.id}")
def test_an_alert_fires_or_not(case: Fires, tmp_path: Path) -> None:
    want = [
        {
            "exp_labels": {**labels, "severity": SEVERITY[case.alert]},
            "exp_annotations": {"summary": summary, "runbook_url": f"{RUNBOOKS}/{case.alert}.md"},
        }
        for labels, summary in case.want
    ]
    expected = {"eval_time": case.at, "alertname": case.alert, "exp_alerts": want}
    run_cases(tmp_path, {**given(case), "alert_rule_test": [expected]})


def test_every_rule_is_tried_and_every_alert_both_ways() -> None:
    assert {case.record for case in RECORDS} == {rule.record for rule in RECORDINGS}
    firing = {case.alert for case in ALERT_CASES if case.want}
    silent = {case.alert for case in ALERT_CASES if not case.want}
    assert firing == silent == {alert.name for alert in ALERTS}


def test_promtool_has_nothing_to_criticise(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(rules())
    promtool("check", "rules", "--lint=all", "--lint-fatal", tmp_path / "rules.yaml")


def alerts(*sets: str) -> dict[str, Object]:
    """The alerts of the rule file by name."""
    (group,) = yaml.safe_load(rules(*sets))["groups"]
    return {rule["alert"]: rule for rule in group["rules"] if "alert" in rule}


def test_a_threshold_is_a_chart_value() -> None:
    changed = alerts("monitoring.thresholds.firstTokenMilliseconds=250", "monitoring.thresholds.notReadyMinutes=45")
    unchanged = alerts()
    assert changed["TunewrightFirstTokenSlow"]["expr"].endswith("> 250")
    assert changed["TunewrightServiceNotReady"]["for"] == "45m"
    differing = {name for name, rule in changed.items() if rule != unchanged[name]}
    assert differing == {"TunewrightFirstTokenSlow", "TunewrightServiceNotReady"}


def test_every_threshold_is_used_and_every_one_used_is_there() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())["monitoring"]["thresholds"]
    assert set(values) == {name for alert in ALERTS for name in alert.thresholds}


def test_an_alert_can_be_left_out() -> None:
    assert set(alerts()) - set(alerts("monitoring.disabledAlerts={TunewrightRolledBack}")) == {"TunewrightRolledBack"}


def test_the_schema_knows_every_alert() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = schema["properties"]["monitoring"]["properties"]["disabledAlerts"]["items"]["enum"]
    assert set(known) == {alert.name for alert in ALERTS}


def test_alerts_link_to_where_the_runbooks_are_published() -> None:
    links = {rule["annotations"]["runbook_url"] for rule in alerts("monitoring.runbookUrl=https://wiki/x/").values()}
    assert links == {f"https://wiki/x/{alert.name}.md" for alert in ALERTS}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("monitoring.disabledAlerts={TunewrightRolledback}", "monitoring/disabledAlerts/0"),
        ("monitoring.prometheusOperator=auto", "'Auto', 'Enabled', 'Disabled'"),
        ("monitoring.scrapeInterval=15", "monitoring/scrapeInterval"),
        ("monitoring.thresholds.errorRatePercent=101", "monitoring/thresholds/errorRatePercent"),
        ("monitoring.thresholds.notReadyMinutes=0.5", "monitoring/thresholds/notReadyMinutes"),
        ("monitoring.thresholds.firstToken=5", "additional properties 'firstToken' not allowed"),
    ],
)
def test_a_wrong_value_is_refused_by_name(value: str, says: str) -> None:
    with pytest.raises(HelmError) as refused:
        template(value)
    assert says in str(refused.value)


KINDS = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
ENABLED = "monitoring.prometheusOperator=Enabled"


def made(*arguments: str) -> list[str]:
    """What the chart makes for a Prometheus."""
    output = helm("template", "tunewright", str(CHART), "--namespace", NAMESPACE, *arguments)
    objects = [document for document in yaml.safe_load_all(output) if document]
    rule_files = [one for one in of_kind(objects, "ConfigMap") if "tunewright.yaml" in one["data"]]
    return [one["kind"] for one in (*of_kind(objects, *KINDS), *rule_files)]


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        ((), ["ConfigMap"]),
        (
            ("--api-versions", "monitoring.coreos.com/v1"),
            ["PodMonitor", "PodMonitor", "PrometheusRule", "ServiceMonitor"],
        ),
        (("--set", ENABLED), ["PodMonitor", "PodMonitor", "PrometheusRule", "ServiceMonitor"]),
        (
            ("--api-versions", "monitoring.coreos.com/v1", "--set", "monitoring.prometheusOperator=Disabled"),
            ["ConfigMap"],
        ),
    ],
    ids=["no Prometheus operator", "the cluster has it", "said so", "not wanted"],
)
def test_the_prometheus_operator_is_used_where_it_is(arguments: tuple[str, ...], want: list[str]) -> None:
    assert sorted(made(*arguments)) == want


def test_both_ways_to_load_the_rules_say_the_same() -> None:
    (rule,) = of_kind(rendered(ENABLED), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(rules())


def test_labels_for_the_prometheus_are_on_everything_that_it_selects() -> None:
    for one in of_kind(rendered(ENABLED, "monitoring.labels.release=kps"), *KINDS):
        assert one["metadata"]["labels"]["release"] == "kps"


def monitor(name: str, *sets: str) -> Object:
    """A ServiceMonitor or PodMonitor by its name."""
    monitors = of_kind(rendered(ENABLED, *sets), "ServiceMonitor", "PodMonitor")
    return next(one["spec"] for one in monitors if one["metadata"]["name"] == name)


@pytest.mark.parametrize("name", ["tunewright-servers", "tunewright-training"])
def test_pods_are_looked_for_where_the_operator_works(name: str) -> None:
    assert monitor(name)["namespaceSelector"] == {"any": True}
    watched = monitor(name, "operator.watchNamespaces={a,b}")
    assert watched["namespaceSelector"] == {"matchNames": ["a", "b"]}


def finds(spec: Object, template: Object) -> bool:
    """Whether a PodMonitor selects the pods of this template, and every port that it names is theirs."""
    wanted = dict(spec["selector"]["matchLabels"])
    # The Job controller writes it.
    wanted.pop("batch.kubernetes.io/job-completion-index", None)
    ports = {port["name"] for one in template["spec"]["containers"] for port in one.get("ports", ())}
    named = {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]}
    return wanted.items() <= template["metadata"]["labels"].items() and named <= ports


def templates(name: str, kind: str) -> list[Object]:
    """The pod templates in a golden file of what the operator makes."""
    golden = Path(__file__).parents[1] / "unit" / "operator" / "golden" / f"{name}.yaml"
    made = of_kind(list(yaml.safe_load_all(golden.read_text())), kind)
    return [one["spec"]["template"] for one in made]


def test_monitors_find_what_the_operator_makes() -> None:
    servers, jobs = templates("inferenceservice", "Deployment"), templates("finetunejob-two-pods", "Job")
    training = [job for job in jobs if job["metadata"]["labels"]["tunewright.io/stage"] == "train"]
    found = {
        name: [pod for pod in (*servers, *jobs) if finds(monitor(f"tunewright-{name}"), pod)]
        for name in ("servers", "training")
    }
    assert found == {"servers": servers, "training": training}
    assert servers
    assert training


def test_the_monitor_of_the_operator_finds_its_service() -> None:
    (service,) = of_kind(rendered(), "Service")
    spec = monitor("tunewright")
    assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [one["port"] for one in spec["endpoints"]] == [one["name"] for one in service["spec"]["ports"]]


def documented(kind: str) -> list[str]:
    """The blocks of docs/monitoring.md in this language."""
    page = (CHART.parents[1] / "docs" / "monitoring.md").read_text()
    return re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)


def test_the_documented_ways_to_install_it_work(tmp_path: Path) -> None:
    scrape, policy, values = documented("yaml")
    (tmp_path / "prometheus.yaml").write_text(scrape)
    promtool("check", "config", tmp_path / "prometheus.yaml")
    (tmp_path / "values.yaml").write_text(values)
    helm("template", "tunewright", str(CHART), "--values", str(tmp_path / "values.yaml"))
    chosen = yaml.safe_load(policy)["spec"]["podSelector"]["matchLabels"]
    assert chosen.items() <= monitor("tunewright-training")["selector"]["matchLabels"].items()
    install = next(block for block in documented("sh") if "helm upgrade" in block)
    sets = re.findall(r"--set (\S+)", install)
    assert len(sets) == 2
    assert "http://kube-prometheus-stack-prometheus.monitoring:9090" in template(*sets)


def test_dashboards_are_config_maps_that_grafana_finds() -> None:
    def found(*sets: str) -> dict[str, str]:
        maps = [
            one for one in of_kind(rendered(*sets), "ConfigMap") if "grafana_dashboard" in one["metadata"]["labels"]
        ]
        return {name: text for one in maps for name, text in one["data"].items()}

    assert {name: json.loads(text) for name, text in found().items()} == {
        f"tunewright-{name}.json": to_json(dashboard) for name, dashboard in DASHBOARDS.items()
    }
    assert found("monitoring.dashboards=false") == {}
