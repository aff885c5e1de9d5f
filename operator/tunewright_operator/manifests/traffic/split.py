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

    @property
    def named(self) -> tuple[str, ...]:
        """Every revision that can be reached, in an order that no promotion changes."""
        parts = {self.stable, *self.revisions} | ({self.candidate} if self.candidate else set())
        return tuple(sorted(parts))

    @property
    def shares(self) -> tuple[tuple[str, int], ...]:
        """(revision, percent) of those that get requests; the percents add up to 100."""
        weight = self.weight if self.candidate else 0
        return tuple(
            (revision, percent)
            for revision, percent in ((self.stable, 100 - weight), (self.candidate, weight))
            if revision and percent
        )

    @property
    def mirror(self) -> str | None:
        """The revision that gets copies."""
        return self.candidate if self.mirror_weight else None
