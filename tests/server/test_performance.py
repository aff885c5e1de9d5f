"""Speed from the times at which tokens came."""

import pytest

from tunewright_api.results import ServerPerformance
from tunewright_server.performance import Arrival, answer_length, measure


def speed(ttft: float, tpot: float, rate: float) -> ServerPerformance:
    """Milliseconds, milliseconds, tokens per second."""
    return ServerPerformance(ttft_milliseconds=ttft, tpot_milliseconds=tpot, tokens_per_second=rate)


MEASURED = [
    pytest.param([(10.2, 1), (10.3, 2), (10.4, 3)], speed(200, 100, 7.5), id="a token at a time"),
    pytest.param([(10.2, 1), (10.6, 5)], speed(200, 100, 8.33), id="several tokens at a time"),
    pytest.param([(10.2, 2), (10.4, 4)], speed(200, 100, 10), id="two tokens first"),
    pytest.param([(10.2, 1)], None, id="one token has no time between tokens"),
    pytest.param([(10.2, 3), (10.3, 3)], None, id="nothing further"),
    pytest.param([], None, id="nothing"),
]


@pytest.mark.parametrize(("arrivals", "want"), MEASURED)
def test_measure(arrivals: list[tuple[float, int]], want: ServerPerformance | None) -> None:
    assert measure(10, [Arrival(*arrival) for arrival in arrivals]) == want


@pytest.mark.parametrize(("max_model_len", "want"), [(None, 32), (4096, 32), (40, 20), (16, 8)])
def test_a_short_context_leaves_room_for_the_prompt(max_model_len: int | None, want: int) -> None:
    assert answer_length(max_model_len) == want
