"""Every query of every dashboard on a real Prometheus that scrapes the real metrics and evaluates the chart's rules."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
import yaml

from e2e.cluster import build, web
from e2e.cluster.apiserver import free_ports
from e2e.cluster.packages import ensure_packages
from e2e.cluster.process import die_with_parent
from e2e.cluster.wait import wait_for
from tests.chart.exporters import PODS, exporters
from tests.chart.monitoring import rules
from tunewright_monitoring import render
from tunewright_monitoring.dashboards import DASHBOARDS
from tunewright_monitoring.panels import queries

Vector = list[dict[str, object]]


def ask(url: str, query: str) -> Vector:
    """An instant query; raises AssertionError with Prometheus' words when it is refused."""
    status, body = web.ask(f"{url}/api/v1/query?{urlencode({'query': query})}")
    assert status == 200, f"{query}: {body}"
    result: Vector = json.loads(body)["data"]["result"]
    return result


def configuration(exporter: str, rule_file: Path) -> dict[str, object]:
    """Scrape every pod each second, with the labels that a pod's target has."""
    pods = [
        {
            "job_name": name,
            "metrics_path": f"/{name}/metrics",
            "honor_labels": True,
            "static_configs": [{"targets": [exporter], "labels": {"namespace": "somewhere", "pod": name}}],
        }
        for name in PODS
    ]
    every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    return {"global": every, "rule_files": [str(rule_file)], "scrape_configs": pods}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Prometheus that has data for every query."""
    build.ensure(["prometheus"], print)
    directory = tmp_path_factory.mktemp("prometheus")
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with exporters() as exporter:
        (directory / "rules.yaml").write_text(rules())
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(configuration(exporter, directory / "rules.yaml")))
        argv = (
            str(build.binary("prometheus")),
            f"--config.file={directory / 'prometheus.yaml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        )
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(die_with_parent(argv), stdout=log, stderr=log)
        try:
            wait_for("Prometheus", lambda: web.answers(f"{url}/-/ready"), 60, hint=(directory / "log").read_text)
            wait_for("rates of what is scraped", lambda: ask(url, "tunewright:requests_per_second > 0"), 60)
            yield url
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_query_returns_data(name: str, prometheus: str) -> None:
    values = {"namespace": "team|other", "inference_service": "guide", "name": "guide-lora"}
    wanted = queries(DASHBOARDS[name], values)

    def empty() -> list[str]:
        return [query for query in wanted if not ask(prometheus, query)]

    wait_for("data for every query", lambda: not empty(), 30, hint=lambda: "\n".join(empty()))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_choice_leaves_out_the_others(name: str, prometheus: str) -> None:
    """But for panels that are about all objects of the cluster."""
    others = {"namespace": "nobody", "inference_service": "nobody", "name": "nobody"}
    about_all = [panel for row in DASHBOARDS[name].rows if row.title.startswith("All") for panel in row.panels]
    free = sum(len(panel.queries) for panel in about_all)
    answers = [ask(prometheus, query) for query in queries(DASHBOARDS[name], others)]
    assert sum(bool(answer) for answer in answers) == free


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_drawn_from_the_samples(
    name: str, prometheus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "images" / f"{name}.svg"
    since = str(time.time() - 30)
    command = ["--prometheus", prometheus, "--dashboard", name, "--output", str(output), "--start", since]
    assert render.main(command) == 0
    assert capsys.readouterr().out == f"wrote {output}\n"
    shown = "".join(ElementTree.parse(output).getroot().itertext())
    assert [panel.title for panel in DASHBOARDS[name].panels if panel.title not in shown] == []
    assert "no data" not in shown


def test_a_dashboard_is_drawn_as_png(prometheus: str, tmp_path: Path) -> None:
    ensure_packages({"rsvg-convert": "librsvg2-bin"}, print)
    output = tmp_path / "rollout.png"
    assert render.main(["--prometheus", prometheus, "--dashboard", "rollout", "--output", str(output)]) == 0
    assert output.read_bytes().startswith(b"\x89PNG")


def test_a_prometheus_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    output = tmp_path / "x.svg"
    assert render.main(["--prometheus", url, "--dashboard", "serving", "--output", str(output)]) == 1
    assert f"Prometheus at {url} does not answer" in capsys.readouterr().err
    assert not output.exists()
