"""The small parts: metrics, drain, settings, cgroups, cache."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tunewright_server.cache import SEED_VARIABLE, fill_cache
from tunewright_server.client import EngineError, EngineMetrics, parse_metrics
from tunewright_server.drain import Drained, drain
from tunewright_server.failures import ServerError
from tunewright_server.machine import available_cpus, oom_kills
from tunewright_server.settings import Settings, read_settings

METRICS = """\
# HELP vllm:num_requests_running Number of requests
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 4.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 5.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 1.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="m"} 9.0
vllm:request_success_created{engine="0",finished_reason="stop",model_name="m"} 1.7e+09
vllm:generation_tokens_total{engine="0",model_name="m"} 1.5e+03
tunewright_requests_total{outcome="ServerError",source="client"} 2.0
tunewright_requests_total{outcome="Broken",source="client"} 1.0
tunewright_requests_total{outcome="Broken",source="probe"} 5.0
tunewright_requests_total{outcome="Completed",source="client"} 7.0
"""


def test_metrics_are_summed_over_engines() -> None:
    want = EngineMetrics(running=3, waiting=4, completed=6, failed=3, generated_tokens=1500)
    assert parse_metrics(METRICS) == want
    assert want.in_flight == 7
    assert parse_metrics("") == EngineMetrics()


SETTINGS = Settings(drain_min=2, drain_idle=1, drain_poll=0.5)
DRAINS = [
    pytest.param([0], 30, Drained(2.0, 0), id="an idle server waits the minimum"),
    pytest.param([3] * 9 + [0], 30, Drained(5.5, 0), id="until requests are over, and then stays idle"),
    pytest.param([1, 0, 1, 0, 1, 0], 30, Drained(3.5, 0), id="a single zero proves nothing"),
    pytest.param([1], 3, Drained(3.0, 1), id="not longer than the limit"),
    pytest.param([None], 3, Drained(3.0, None), id="silence is not idleness"),
    pytest.param([0], 0, Drained(0.0, 0), id="no time to drain"),
]


@pytest.mark.parametrize(("counts", "limit", "want"), DRAINS)
async def test_drain(counts: list[int | None], limit: float, want: Drained) -> None:
    now = 0.0

    def values() -> Iterator[int | None]:
        yield from counts
        while True:
            yield counts[-1]

    remaining = values()

    async def in_flight() -> int:
        count = next(remaining)
        if count is None:
            raise EngineError("no answer")
        return count

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    assert await drain(in_flight, limit, SETTINGS, clock=lambda: now, sleep=sleep) == want


def test_settings_come_from_the_environment() -> None:
    assert read_settings({}) == Settings()
    assert read_settings({"TUNEWRIGHT_SERVER_DRAIN_MIN": "7.5"}).drain_min == 7.5


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", ""])
def test_a_wrong_setting_is_named(text: str) -> None:
    with pytest.raises(ServerError, match="TUNEWRIGHT_SERVER_STUCK is"):
        read_settings({"TUNEWRIGHT_SERVER_STUCK": text})


CGROUPS = [
    pytest.param({"cpu.max": "50000 100000\n"}, 1, id="half a CPU is one thread"),
    pytest.param({"cpu.max": "max 100000\n"}, None, id="no quota"),
    pytest.param({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1, id="cgroup v1"),
    pytest.param({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None, id="v1 without quota"),
    pytest.param({}, None, id="no cgroups"),
]


@pytest.mark.parametrize(("files", "want"), CGROUPS)
def test_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], want: int | None) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)))
    _write(tmp_path, files)
    assert available_cpus(tmp_path) == (6 if want is None else want)


KILLS = [
    pytest.param({"memory.events": "oom 3\noom_kill 2\n"}, 2, id="cgroup v2"),
    pytest.param({"memory/memory.oom_control": "under_oom 0\noom_kill 1\n"}, 1, id="cgroup v1"),
    pytest.param({}, 0, id="unknown"),
]


@pytest.mark.parametrize(("files", "want"), KILLS)
def test_oom_kills(tmp_path: Path, files: dict[str, str], want: int) -> None:
    _write(tmp_path, files)
    assert oom_kills(tmp_path) == want


def test_the_cache_is_filled_from_the_seed(tmp_path: Path) -> None:
    _write(tmp_path, {"seed/modelinfos/a.json": "{}", "cache/modelinfos/b.json": "{}"})
    environment = {SEED_VARIABLE: str(tmp_path / "seed"), "VLLM_CACHE_ROOT": str(tmp_path / "cache")}
    fill_cache(environment)
    assert sorted(path.name for path in (tmp_path / "cache" / "modelinfos").iterdir()) == ["a.json", "b.json"]


def test_a_missing_seed_costs_nothing_but_time(tmp_path: Path) -> None:
    fill_cache({SEED_VARIABLE: str(tmp_path / "none"), "VLLM_CACHE_ROOT": str(tmp_path / "cache")})
    fill_cache({})


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
