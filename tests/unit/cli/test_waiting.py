"""What the command line says a waiting candidate waits for is what the operator waits for."""

from hypothesis import given
from hypothesis import strategies as st

from tunewright_api.rollout import Rollout
from tunewright_api.rollout_status import CandidateStatus, Phase
from tunewright_cli.chain.service import steps_of
from tunewright_cli.chain.waiting import next_verb
from tunewright_operator.policies.rollout.steps import MANUAL_GATE, wait_reason, weights_of

percent = st.integers(min_value=1, max_value=99)


@given(
    steps=st.lists(percent, min_size=1, max_size=5, unique=True).map(sorted),
    gates=st.lists(percent, min_size=1, max_size=4, unique=True),
    opened=st.lists(percent, max_size=2, unique=True),
    place=st.integers(min_value=0, max_value=5),
    auto=st.booleans(),
)
def test_the_verb_opens_what_is_closed(
    *, steps: list[int], gates: list[int], opened: list[int], place: int, auto: bool
) -> None:
    spec = {"strategy": "Canary", "steps": steps, "manualGates": gates, "autoPromote": auto}
    rollout = Rollout.model_validate(spec)
    weight = (0, *steps)[min(place, len(steps))]
    candidate = CandidateStatus(
        revision="b",
        version="guide-v2",
        replicas=1,
        ready_replicas=1,
        phase=Phase.WAITING,
        weight=weight,
        started_at="",
        opened_gates=opened,
    )
    assert tuple(steps_of(spec)) == weights_of(rollout)
    verb = next_verb(weight=weight, steps=steps_of(spec), gates=gates, opened=opened, failed=False)
    assert (verb == "resume") == (wait_reason(rollout, candidate) == MANUAL_GATE)


def test_after_a_failed_check_a_good_one_comes_first() -> None:
    assert not next_verb(weight=20, steps=[20], gates=[], opened=[], failed=True)
    assert next_verb(weight=20, steps=[20], gates=[20], opened=[], failed=True) == "resume"
