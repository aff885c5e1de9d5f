"""What lets a waiting candidate go on."""

from collections.abc import Collection, Sequence

# A gate at weight w stands before every weight above w, and all traffic is above every weight.
_ALL_TRAFFIC = 101


def next_verb(
    *, weight: int, steps: Sequence[int], gates: Collection[int], opened: Collection[int], failed: bool
) -> str:
    """`resume` for a closed gate, `promote` where a person promotes; empty while a good check has to come first.

    A gate holds at the last weight that is not above it.
    """
    following = next((step for step in sorted(steps) if step > weight), _ALL_TRAFFIC)
    if any(weight <= gate < following for gate in set(gates) - set(opened)):
        return "resume"
    return "" if failed else "promote"
