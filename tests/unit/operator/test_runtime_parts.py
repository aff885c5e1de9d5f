"""Settings, logs, probes, the client of the trainer, and what the apiserver's answers become."""

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, web

from tunewright_operator.clients.trainer import fetch_progress
from tunewright_operator.config import ConfigError, OperatorConfig
from tunewright_operator.handlers.registry import build_settings
from tunewright_operator.health import build_app
from tunewright_operator.kube.client import to_error
from tunewright_operator.kube.errors import AlreadyExists, Conflict, Forbidden, Invalid, KubeError, NotFound, Transient
from tunewright_operator.kube.resources import object_path
from tunewright_operator.log import JsonFormatter, about

IMAGES = {"TUNEWRIGHT_TRAINER_IMAGE": "trainer:1", "TUNEWRIGHT_SERVER_IMAGE": "server:1"}


def test_the_images_are_enough() -> None:
    assert OperatorConfig.from_env(IMAGES) == OperatorConfig("trainer:1", "server:1")


def test_every_setting_is_read() -> None:
    config = OperatorConfig.from_env(
        IMAGES
        | {
            "TUNEWRIGHT_IMAGE_PULL_POLICY": "Never",
            "TUNEWRIGHT_NAMESPACE": "ml",
            "TUNEWRIGHT_WATCH_NAMESPACES": "a, b,",
            "TUNEWRIGHT_PORT": "9000",
            "TUNEWRIGHT_LOG_LEVEL": "DEBUG",
            "TUNEWRIGHT_TRAINER_PORT": "9191",
            "TUNEWRIGHT_PROGRESS_INTERVAL_SECONDS": "0.5",
            "TUNEWRIGHT_RECHECK_INTERVAL_SECONDS": "2",
            "TUNEWRIGHT_SETTLED_INTERVAL_SECONDS": "90",
            "TUNEWRIGHT_RESULT_GRACE_SECONDS": "3",
            "TUNEWRIGHT_PROMETHEUS_URL": "http://prometheus.monitoring:9090",
            "TUNEWRIGHT_IN_MESH": "true",
        }
    )
    assert config == OperatorConfig(
        trainer_image="trainer:1",
        server_image="server:1",
        image_pull_policy="Never",
        namespace="ml",
        watch_namespaces=("a", "b"),
        port=9000,
        log_level="DEBUG",
        trainer_port=9191,
        prometheus_url="http://prometheus.monitoring:9090",
        in_mesh=True,
        progress_interval=0.5,
        recheck_interval=2.0,
        settled_interval=90.0,
        result_grace=3.0,
    )


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TUNEWRIGHT_TRAINER_IMAGE", "", "is not set"),
        ("TUNEWRIGHT_IMAGE_PULL_POLICY", "Sometimes", "write one of Always, IfNotPresent, Never"),
        ("TUNEWRIGHT_PORT", "eighty", "write a number above 0"),
        ("TUNEWRIGHT_PROGRESS_INTERVAL_SECONDS", "0", "write a number above 0"),
        ("TUNEWRIGHT_PROMETHEUS_URL", "prometheus:9090", "write a URL such as"),
        ("TUNEWRIGHT_IN_MESH", "yes", "write one of true, false"),
    ],
)
def test_a_wrong_setting_is_named_with_the_remedy(name: str, value: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*{says}"):
        OperatorConfig.from_env(IMAGES | {name: value})


def test_a_log_line_is_json_and_names_the_object() -> None:
    record = logging.LogRecord("tunewright", logging.INFO, __file__, 1, "did %s", ("it",), None)
    record.fields = {"namespaces": "all"}
    with about("FineTuneJob", "team", "guide"):
        line = json.loads(JsonFormatter().format(record))
    outside = json.loads(JsonFormatter().format(record))
    assert line["message"] == "did it"
    assert (line["kind"], line["namespace"], line["name"], line["namespaces"]) == (
        "FineTuneJob",
        "team",
        "guide",
        "all",
    )
    assert "name" not in outside


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (401, Transient),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (422, Invalid),
        (429, Transient),
        (500, Transient),
        (503, Transient),
        (418, KubeError),
    ],
)
def test_an_answer_becomes_a_typed_error_with_the_sentence_of_the_apiserver(status: int, kind: type[KubeError]) -> None:
    error = to_error(status, json.dumps({"kind": "Status", "message": "field is immutable"}))
    assert type(error) is kind
    assert (error.message, error.status) == ("field is immutable", status)
    assert to_error(status, "<html>").message == "<html>"


def test_a_name_that_is_there_already_is_no_other_conflict() -> None:
    text = json.dumps({"kind": "Status", "reason": "AlreadyExists", "message": 'jobs.batch "x" already exists'})
    assert type(to_error(409, text)) is AlreadyExists


def test_paths_of_the_core_group_and_of_ours() -> None:
    assert object_path("v1", "Secret", "team", "hub") == "/api/v1/namespaces/team/secrets/hub"
    path = object_path("tunewright.io/v1alpha1", "FineTuneJob", "team", "guide", "status")
    assert path == "/apis/tunewright.io/v1alpha1/namespaces/team/finetunejobs/guide/status"


def test_kopf_keeps_its_books_out_of_users_objects() -> None:
    settings = build_settings()
    assert settings.persistence.finalizer == "tunewright.io/operator"
    assert settings.scanning.disabled
    body: dict[str, Any] = {"metadata": {}}
    assert settings.persistence.diffbase_storage.fetch(body=body) is None
    assert settings.persistence.progress_storage.fetch(key="x", body=body) is None


@pytest.fixture
async def trainer() -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """A trainer's port, and the answer it gives."""
    answer: dict[str, Any] = {"status": 200, "text": json.dumps({"step": 1, "totalSteps": 4, "epoch": 0.25})}

    async def progress(_: web.Request) -> web.Response:
        return web.Response(**answer)

    app = web.Application()
    app.add_routes([web.get("/progress", progress)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1], answer
    await runner.cleanup()


async def test_progress_is_read_and_every_other_answer_is_none(trainer: tuple[int, dict[str, Any]]) -> None:
    port, answer = trainer
    progress = await fetch_progress("127.0.0.1", port)
    assert progress
    assert (progress.step, progress.total_steps) == (1, 4)
    answer["text"] = "not JSON"
    assert await fetch_progress("127.0.0.1", port) is None
    answer["status"] = 503
    assert await fetch_progress("127.0.0.1", port) is None
    assert await fetch_progress("127.0.0.1", 1) is None


async def test_the_operator_is_ready_when_it_watches_and_alive_before() -> None:
    ready = False
    runner = web.AppRunner(build_app(lambda: ready))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with ClientSession() as session:

        async def ask(path: str) -> tuple[int, str]:
            async with session.get(url + path) as response:
                return response.status, await response.text()

        assert await ask("/healthz") == (200, "ok")
        assert (await ask("/readyz"))[0] == 503
        ready = True
        assert await ask("/readyz") == (200, "ok")
        assert "python_info" in (await ask("/metrics"))[1]
    await runner.cleanup()
