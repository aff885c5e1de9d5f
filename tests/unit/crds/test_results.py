"""A termination message always fits and always comes back."""

from hypothesis import given
from hypothesis import strategies as st

from tunewright_api.evaluation import MetricName, Sample
from tunewright_api.results import MAX_MESSAGE_BYTES, EvaluateResult, MetricPair, Outcome, StageResult, TaskPair

samples = st.lists(st.builds(Sample, prompt=st.text(), base=st.text(), tuned=st.text()), max_size=5)


@given(message=st.text(), answers=samples, repeat=st.integers(1, 500), tasks=st.integers(0, 8))
def test_a_result_fits_into_a_termination_message(message: str, answers: list[Sample], repeat: int, tasks: int) -> None:
    def stretch(text: str) -> str:
        return (text * repeat)[:8000]

    long = [Sample(prompt=stretch(a.prompt), base=stretch(a.base), tuned=stretch(a.tuned)) for a in answers]
    metrics = [MetricPair(metric=name, base=1.0, tuned=0.5) for name in MetricName]
    result = StageResult(
        outcome=Outcome.SUCCEEDED,
        message=message * repeat,
        evaluate=EvaluateResult(
            records=3,
            metrics=metrics,
            samples=long,
            tasks=[TaskPair(task="t" * 100, metric="m" * 100, base=0.123456, tuned=0.654321) for _ in range(tasks)],
        ),
    )
    text = result.to_message()
    assert len(text.encode()) <= MAX_MESSAGE_BYTES
    parsed = StageResult.from_message(text)
    assert parsed is not None
    assert parsed.evaluate is not None
    assert parsed.evaluate.metrics == metrics


def test_a_crash_is_no_result() -> None:
    assert StageResult.from_message("Killed") is None
