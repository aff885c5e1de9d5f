"""How the requests of a service are shared among its revisions."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """What the traffic shall be. `weight` is the candidate's percent of the requests, `stable` gets the rest;
    `mirror_weight` is the percent whose copies the candidate gets besides, answers thrown away. `revisions` are all
    those that can be asked for by name."""

    stable: str
    candidate: str | None = None
    weight: int = 0
    mirror_weight: int = 0
    revisions: tuple[str, ...] = ()
