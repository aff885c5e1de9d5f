"""docs/kubectl.md, from the cluster that `make demo-canary` leaves up."""

from __future__ import annotations

from dataclasses import dataclass

from e2e.demo.kubectl import Kubectl

TITLE = """\
# What kubectl shows

Real output of the cluster that `make demo-canary` leaves up: version 2 was promoted, version 3 was undone. Status
tells the story; nothing here needs a tool of ours. `make docs-kubectl` writes this page.
"""


@dataclass(frozen=True)
class Sight:
    """A heading, a command, and a sentence before what it prints."""

    command: str
    sentence: str = ""
    heading: str = ""

    def text(self, kubectl: Kubectl) -> str:
        """The part of the page."""
        printed = kubectl.run(*self.command.split()).rstrip()
        parts = [f"## {self.heading}"] if self.heading else []
        parts += [self.sentence] if self.sentence else []
        return "\n\n".join([*parts, f"```text\n$ kubectl {self.command}\n{printed}\n```"])


def sights(namespace: str, job: str, version: str, service: str) -> list[Sight]:
    """What somebody would type, in the order in which they would."""
    one = f"-n {namespace}"
    return [
        Sight(f"{one} get ftj,mv,tis", heading="All three kinds at once"),
        Sight(f"{one} get ftj,mv,tis -o wide", "`-o wide` adds the sentence that matters now:"),
        Sight(f"{one} describe ftj/{job}", heading="A job"),
        Sight(f"{one} describe mv/{version}", heading="A version"),
        Sight(f"{one} describe tis/{service}", "With the last decisions of its rollouts:", heading="A service"),
        Sight("explain finetunejob.spec --recursive", "Each field explains itself:", heading="Fields"),
        Sight("explain finetunejob.spec.restartPolicy"),
        Sight("explain inferenceservice.spec.rollout"),
    ]


def page(kubectl: Kubectl, seen: list[Sight]) -> str:
    """The whole page."""
    return "\n\n".join([TITLE.rstrip(), *(sight.text(kubectl) for sight in seen)]) + "\n"
