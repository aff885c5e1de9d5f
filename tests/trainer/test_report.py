"""What is left of a run for people: the log of the steps over interruptions, TensorBoard files, curves, the page."""

import dataclasses
import json
import math
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.trainer.support import Job, step_record, write_tiny_model
from tunewright_api.artifact import verify
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import config as configuration
from tunewright_trainer.kernels import Kernels
from tunewright_trainer.layout import Layout
from tunewright_trainer.report.curves import curves_svg, loss_png, smooth, thin
from tunewright_trainer.report.page import figures
from tunewright_trainer.report.runlog import RunLog
from tunewright_trainer.report.steplog import LoggedStep, StepLog, read_steps
from tunewright_trainer.report.tensorboard import crc32c, scalars
from tunewright_trainer.report.write import write_report
from tunewright_trainer.steps import EVAL_LOSS, StepRecord


def record(step: int, loss: float = 0.0, **figures: float) -> StepRecord:
    """A step of a run whose loss falls."""
    return step_record(step, loss=loss or 2 / step, figures=figures)


def load(job: Job) -> TrainerConfig:
    """The job's configuration, as a stage reads it."""
    path = job.root / "config.json"
    path.write_text(json.dumps(job.config))
    return configuration.load(path, TrainerConfig)


# --- the log of the steps ---------------------------------------------------------------------


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    attempts=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 300)), min_size=1, max_size=5)
)
def test_no_step_twice_however_often_a_run_is_interrupted(tmp_path: Path, attempts: list[tuple[int, int, int]]) -> None:
    """Each attempt resumes at a checkpoint of the one before, makes some steps, and loses the end of the file."""
    path = tmp_path / "steps.jsonl"
    path.unlink(missing_ok=True)
    reached = 0
    for back, ahead, torn in attempts:
        resume = max(0, reached - back)
        log = StepLog(path, resume)
        for step in range(resume + 1, resume + ahead + 1):
            log.append(LoggedStep(float(step), record(step)))
        log.close()
        steps = [step.record.step for step in read_steps(path)]
        assert steps == sorted(set(steps))
        assert set(range(resume + 1, resume + ahead + 1)) <= set(steps)
        assert all(step <= resume + ahead for step in steps)
        reached = resume + ahead
        content = path.read_bytes()
        path.write_bytes(content[: max(0, len(content) - torn)])


def test_a_logged_step_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    log = StepLog(path, 0)
    step = LoggedStep(1700000000.25, record(1, loss=1.25, evalLoss=2.5, kl=math.inf))
    log.append(step)
    (read,) = read_steps(path)
    assert (read.time, read.record.loss, read.record.figures["evalLoss"]) == (1700000000.25, 1.25, 2.5)
    assert math.isnan(read.record.figures["kl"])
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["figures"]["kl"] is None
    same = dataclasses.replace(step.record, figures={})
    assert dataclasses.replace(read.record, figures={}) == same
    log.close()


def test_a_log_of_a_newer_version_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text(json.dumps({"time": 1.0, **record(1).to_dict(), "later": 1}) + "\n")
    assert read_steps(path) == [LoggedStep(1.0, record(1))]


# --- TensorBoard ------------------------------------------------------------------------------


def test_crc32c_of_the_check_value() -> None:
    """RFC 3720, appendix B.4, and the catalogue of CRCs."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_tensorboard_reads_every_step_once_after_a_resume(job: Callable[..., Job]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    layout = Layout(load(job()))
    first = RunLog(layout, 0, clock=lambda: 1000.0)
    for step in range(1, 8):
        first.on_step(record(step))
    first.close()
    second = RunLog(layout, 5, clock=lambda: 2000.0)
    for step in range(6, 9):
        second.on_step(record(step, evalLoss=1.0 * step))
    second.close()

    accumulator = EventAccumulator(str(layout.tensorboard))
    accumulator.Reload()
    losses = accumulator.Scalars("train/loss")
    assert [(event.step, event.wall_time) for event in losses] == [
        (step, 1000.0 if step <= 5 else 2000.0) for step in range(1, 9)
    ]
    assert [event.value for event in losses] == pytest.approx([2 / step for step in range(1, 9)])
    assert [event.step for event in accumulator.Scalars(f"figures/{EVAL_LOSS}")] == [6, 7, 8]
    assert set(accumulator.Tags()["scalars"]) == set(scalars(record(1, evalLoss=1.0)))
    assert json.loads(layout.environment.read_text())["torch"]


# --- curves -----------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(1, 50))
def test_thinned_curves_keep_their_mean_and_order(values: list[float], limit: int) -> None:
    xs, ys = thin(range(len(values)), values, limit)
    assert len(xs) == len(ys) <= limit
    assert xs == sorted(xs)
    assert min(values) - 1e-6 <= min(ys) <= max(ys) <= max(values) + 1e-6


def test_what_is_no_number_is_not_drawn() -> None:
    assert thin([1, 2, 3], [1.0, math.nan, 3.0]) == ([1, 3], [1.0, 3.0])


def test_smoothing() -> None:
    assert smooth([3.0, 3.0, 3.0]) == pytest.approx([3, 3, 3])
    assert smooth([1.0, 0.0], weight=0.5) == pytest.approx([1, 1 / 3])


def test_curves() -> None:
    steps = [record(step, **({EVAL_LOSS: 1.0} if step % 10 == 0 else {})) for step in range(1, 40)]
    assert loss_png(steps).startswith(b"\x89PNG")
    drawn = curves_svg(steps)
    assert drawn == curves_svg(steps)
    texts = {"".join(node.itertext()) for node in ElementTree.fromstring(drawn).iter() if node.tag.endswith("text")}
    assert {"loss", "held-out records", "gradient norm before clipping", "learning rate"} <= texts
    assert {"memory of rank 0, GiB", "share of the step spent waiting for data"} <= texts


# --- the page ---------------------------------------------------------------------------------

EVALUATION = {
    "records": 4,
    "metrics": [
        {"metric": "Loss", "base": 2.5, "tuned": 1.25},
        {"metric": "RougeL", "base": 0.5, "tuned": 0.25},
        {"metric": "ExactMatch", "base": 0.5, "tuned": 0.5},
    ],
    "samples": [{"prompt": "<script>alert(1)</script>", "base": "a & b", "tuned": "<b>\n  two"}],
    "tasks": [{"task": "sums", "metric": "acc", "base": 0.25, "tuned": 0.75}],
}


# What prepare leaves in report.json.
DATA = {
    "rows": {"read": 40, "heldOut": 4},
    "parts": [{"read": 40}],
    "tokens": {"p95": 80.0, "longest": 90},
    "lengths": {"1-16": 0, "17-32": 10, "33-64": 20, "65-128": 10},
    "examples": [
        {
            "line": 7,
            "tokens": 9,
            "segments": [{"text": "user: <Hi>", "counted": False}, {"text": "Yo", "counted": True}],
        }
    ],
}


KERNELS = Kernels("sdpa", liger=False, fp8=False, compile=False)


class Links(HTMLParser):
    """Collects what a browser would load, and the scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note tags and attributes that load."""
        if tag in {"script", "link", "iframe", "img", "object", "embed"}:
            self.loaded.append(tag)
        self.loaded += [f"{name}={value}" for name, value in attrs if name in {"src", "srcset", "action", "onload"}]
        self.loaded += [f"{n}={v}" for n, v in attrs if n.endswith("href") and not (v or "").startswith("#")]


@pytest.fixture
def finished(job: Callable[..., Job], tmp_path: Path) -> Job:
    """A job whose stages have left what they leave, without computing it."""
    made = job(method={"full": {}}, evaluation={"gates": [{"metric": "Loss", "max": 2}]})
    made.must("prepare")
    layout = Layout(load(made))
    log = RunLog(layout, 0, kernels=KERNELS.in_words())
    for step in range(1, 20):
        log.on_step(record(step))
    log.close()
    write_tiny_model(layout.trained, norm=2.0)
    layout.train_result.write_text(json.dumps({"steps": 19, "loss": 0.105, "seconds": 9.5}))
    layout.evaluation.write_text(json.dumps(EVALUATION))
    layout.dataset_report.write_text(json.dumps(DATA))
    return made


def test_the_report_is_a_page_that_needs_nothing_else(finished: Job, tmp_path: Path) -> None:
    config = load(finished)
    write_report(config, Layout(config), tmp_path / "report")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "index.html",
        "steps.jsonl",
        "loss.png",
        "tensorboard",
    }
    page = (tmp_path / "report" / "index.html").read_text()
    links = Links()
    links.feed(page)
    assert links.loaded == []
    assert "http://" not in page.replace("http://www.w3.org/", "")
    for wanted in (
        "<h1>team/support</h1>",
        "19 optimizer steps in 9.5 s · last training loss 0.105",
        '<td class="good">-1.25, better</td>',
        '<td class="bad">-0.25, worse</td>',
        '<span class="good">&lt;= 2 passed</span>',
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "a &amp; b",
        "<td>sums</td><td>acc</td>",
        "<pre>user: &lt;Hi&gt;<mark>Yo</mark></pre>",
        "<td>rows: held out</td><td>4</td>",
        "<td>tokens: 95th percentile</td><td>80.0</td>",
        "<td>tokens: longest</td><td>90</td>",
        '17-32</td><td class="number">10</td>\n<td class="bar"><div style="width: 50.0%">',
        '<td class="text">&lt;b&gt;\n  two</td>',
        ".text { white-space: pre-wrap;",
        "<td>Attention</td><td>sdpa</td>",
        "&#34;learningRate&#34;: 0.002",
        "<td>torch</td>",
        "<svg",
    ):
        assert wanted in page, wanted
    assert "33-64: 20" not in page


def test_a_run_that_left_little_still_has_a_page(job: Callable[..., Job], tmp_path: Path) -> None:
    config = load(job())
    write_report(config, Layout(config), tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "The model was not evaluated." in page
    assert "There is no log of the steps." in page
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]


def test_the_time_of_a_run_that_was_interrupted(finished: Job, tmp_path: Path) -> None:
    """Steps 1 to 6, of which the last two are lost, and 5 to 10 an hour later: 10 steps of half a second each."""
    config = load(finished)
    layout = Layout(config)
    for resume, times in ((0, range(6)), (4, range(3600, 3606))):
        log = StepLog(layout.steps, resume)
        for count, ended in enumerate(times, start=1):
            log.append(LoggedStep(float(ended), record(resume + count)))
        log.close()
    layout.train_result.write_text(json.dumps({"steps": 10, "loss": 0.5, "seconds": 5.0}))
    write_report(config, layout, tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "10 optimizer steps in 5.0 s · 1 h 0 min with evaluations and interruptions · last" in page


def test_what_is_no_number_is_no_improvement(finished: Job, tmp_path: Path) -> None:
    config = load(finished)
    metrics = [{"metric": "Loss", "base": 2.5, "tuned": math.nan}, {"metric": "RougeL", "base": math.inf, "tuned": 1}]
    tasks = [{"task": "sums", "metric": "acc", "base": math.nan, "tuned": 0.5}]
    Layout(config).evaluation.write_text(json.dumps({**EVALUATION, "metrics": metrics, "tasks": tasks}))
    write_report(config, Layout(config), tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count('<td class="bad">no number</td>') == 2
    assert page.count('<td class="number">no number</td>') == 3
    assert '<span class="bad">&lt;= 2 missed</span>' in page
    assert "nan" not in page.partition("<h2>Curves</h2>")[0]


def test_directions_of_the_figures(job: Callable[..., Job]) -> None:
    from tunewright_api.results import EvaluateResult

    lines = figures(load(job()), EvaluateResult.model_validate(EVALUATION))
    assert [(line.name, line.change) for line in lines] == [
        ("Loss", "-1.25, better"),
        ("RougeL", "-0.25, worse"),
        ("ExactMatch", "the same"),
    ]


def test_the_report_is_part_of_the_artifact_and_of_its_digest(finished: Job) -> None:
    result = finished.must("export")["export"]
    manifest = verify(finished.artifact, result["digest"])
    listed = {file.path for file in manifest.files}
    assert {"report/index.html", "report/steps.jsonl", "report/loss.png"} <= listed
    assert any(path.startswith("report/tensorboard/events.out.tfevents.") for path in listed)
    assert not [path for path in listed if path.startswith("model/report")]
