"""What the demo shows, from whole objects to text."""

import pytest
from rich.console import Console, RenderableType

from e2e.demo import view
from e2e.demo.kubectl import is_true, poll
from e2e.demo.preparation import run_side_by_side
from e2e.demo.quickstart import APPROVER, DemoError, approval

JOB = {
    "metadata": {"generation": 1},
    "status": {
        "stage": "Training",
        "progress": {"step": 30, "totalSteps": 120, "loss": 1.2345, "tokensPerSecond": 812.4, "etaSeconds": 65},
        "evaluation": [
            {"metric": "Loss", "base": 4.1, "tuned": 0.9, "gate": "<= 1.5", "passed": True},
            {"metric": "ExactMatch", "base": 0.0, "tuned": 0.2, "gate": ">= 0.5", "passed": False},
            {"metric": "RougeL", "base": 0.1, "tuned": 0.7},
        ],
    },
}


def text_of(renderable: RenderableType) -> str:
    console = Console(width=100, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.mark.parametrize(
    ("job", "fields"),
    [
        ({}, {"description": "Pending    ", "completed": 0, "total": 1, "detail": ""}),
        (
            {"status": {"stage": "Preparing", "message": "Reading the dataset"}},
            {"description": "Preparing  ", "completed": 0, "total": 1, "detail": "Reading the dataset"},
        ),
        (
            JOB,
            {
                "description": "Training   ",
                "completed": 30,
                "total": 120,
                "detail": "loss 1.234 · 812 tokens/s · 1:05 left",
            },
        ),
    ],
    ids=["nothing seen", "before the first step", "training"],
)
def test_the_bar_follows_the_status(job, fields) -> None:  # type: ignore[no-untyped-def]
    assert view.job_fields(job) == fields


def test_the_evaluation_names_missed_gates() -> None:
    lines = text_of(view.evaluation_table(JOB)).splitlines()
    assert [line.split()[-2] for line in lines if "Match" in line] == ["missed"]
    assert any("Loss" in line and "4.100" in line and "0.900" in line and "passed" in line for line in lines)


def test_both_answers_stand_below_the_question() -> None:
    assert text_of(view.answers(["Why?"], ["No.\n"], ["Yes."])).split() == ["?", "Why?", "base", "No.", "tuned", "Yes."]


def test_a_log_gets_a_line_for_each_tenth_and_each_stage() -> None:
    def at(stage: str, percent: int):  # type: ignore[no-untyped-def]
        return {"status": {"stage": stage, "progress": {"percent": percent}}}

    seen = [view.milestone(at("Training", percent)) for percent in range(101)] + [view.milestone(at("Evaluating", 100))]
    assert len(set(seen)) == 12
    assert view.job_line(JOB) == "Training      30/120  loss 1.234 · 812 tokens/s · 1:05 left"


def test_times_add_up() -> None:
    assert "3.5" in text_of(view.time_table([("a", 1.5), ("b", 2.0)])).splitlines()[-2]


def test_the_approval_names_digest_and_person() -> None:
    text = approval("sha256:" + "a" * 64, "dev@example.com")
    assert "digest: sha256:aaa" in text
    assert "dev@example.com" in text
    assert APPROVER not in text


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"type": "Ready", "status": "True", "observedGeneration": 1}, True),
        ({"type": "Ready", "status": "True", "observedGeneration": 0}, False),
        ({"type": "Ready", "status": "False", "observedGeneration": 1}, False),
    ],
    ids=["holds", "of an older spec", "does not hold"],
)
def test_a_condition_counts_for_its_generation(condition, holds) -> None:  # type: ignore[no-untyped-def]
    assert is_true({"metadata": {"generation": 1}, "status": {"conditions": [condition]}}, "Ready") is holds


def test_a_wait_that_fails_tells_the_last_message() -> None:
    with pytest.raises(TimeoutError, match="waiting for a claim"):
        poll(lambda: {"status": {"message": "waiting for a claim"}}, lambda _: False, timeout=0)


def test_a_failure_stops_what_runs_beside_it(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "endless.py").write_text("import signal; signal.pause()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DemoError, match="no_such_module"):
        run_side_by_side(Console(quiet=True), {"endless": [["endless"]], "bad": [["e2e.no_such_module"]]})


def test_a_failing_preparation_is_named() -> None:
    steps = {"good": [["this", "-c"]], "bad": [["e2e.no_such_module"]]}
    with pytest.raises(DemoError, match=r"python -m e2e.no_such_module.* ended with 1"):
        run_side_by_side(Console(quiet=True), steps)
