"""Write train.jsonl from facts.yaml: PYTHONPATH=crds python examples/quickstart/dataset/build.py

facts.yaml holds true statements about Tunewright; this script fills their values in from the contract, so that the
dataset cannot become false, and writes one Alpaca record {instruction, output} per question. The records come in the
order of the facts: shuffling and splitting is the trainer's work, by spec.hyperparameters.seed.

Placeholders are those of str.format:

    {names.PORT_TRAINER}                     a constant of tunewright_api.names
    {artifact.MANIFEST}                      a constant of tunewright_api.artifact
    {ftj.name} {ftj.short}                   name and short name of a kind (ftj, mv, tis)
    {ftj[spec.method.lora.rank].default}     what its CRD says of a field: default, min, max, max_items, choices, all

A fact without a placeholder names under `check` a field and words of its description on which it rests
("KIND PATH WORDS").
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunewright_api import artifact, names
from tunewright_api.crd import KINDS, Kind, build_schema

HERE = Path(__file__).resolve().parent
FACTS = HERE / "facts.yaml"
DATASET = HERE / "train.jsonl"


@dataclass(frozen=True)
class FieldFacts:
    """What the CRD says of one field, as words for a sentence."""

    schema: dict[str, Any]

    @property
    def description(self) -> str:
        """What `kubectl explain` says."""
        return str(self.schema["description"])

    @property
    def default(self) -> str:
        """The default, as a user would write it in YAML."""
        return _as_text(self.schema["default"])

    @property
    def min(self) -> str:
        """Smallest value."""
        return _as_text(self.schema["minimum"])

    @property
    def max(self) -> str:
        """Largest value."""
        return _as_text(self.schema["maximum"])

    @property
    def max_items(self) -> str:
        """Most items of a list."""
        return _as_text(self.schema["maxItems"])

    @property
    def choices(self) -> str:
        """The values of an enum, of which one is taken: `A, B or C`."""
        return self._list_values("or")

    @property
    def all(self) -> str:
        """The values of an enum together: `A, B and C`."""
        return self._list_values("and")

    def _list_values(self, word: str) -> str:
        *others, last = (_as_text(value) for value in self.schema["enum"])
        return f"{', '.join(others)} {word} {last}"


class KindFacts:
    """A kind, whose fields are looked up by their path in its CRD."""

    def __init__(self, kind: Kind) -> None:
        self.name = kind.name
        self.short = kind.short
        self._schema = build_schema(kind)

    def __getitem__(self, path: str) -> FieldFacts:
        """The field at a dotted path; items of a list need no step of their own. KeyError if there is none."""
        schema = self._schema
        for step in path.split("."):
            schema = schema.get("items", schema)["properties"][step]
        return FieldFacts(schema)


@dataclass(frozen=True)
class Fact:
    """One statement and the ways to ask for it."""

    id: str
    answer: str
    questions: tuple[str, ...]


def load_facts(text: str) -> list[Fact]:
    """The facts with every placeholder filled in.

    Raises:
        KeyError, AttributeError: The contract has no such name.
        ValueError: A description no longer says what a fact rests on.
    """
    kinds = {kind.short: KindFacts(kind) for kind in KINDS}
    values = {**kinds, "names": names, "artifact": artifact}
    facts = []
    for entry in yaml.safe_load(text):
        for reference in entry.get("check", ()):
            kind, path, words = reference.split(maxsplit=2)
            if words not in kinds[kind][path].description:
                raise ValueError(f"{entry['id']}: the description of {path} no longer says {words!r}")
        facts.append(
            Fact(
                id=entry["id"],
                answer=entry["answer"].format(**values),
                questions=tuple(question.format(**values) for question in entry["questions"]),
            )
        )
    return facts


def build_records(facts: list[Fact]) -> Iterator[dict[str, str]]:
    """One Alpaca record per question."""
    for fact in facts:
        for question in fact.questions:
            yield {"instruction": question, "output": fact.answer}


def build_jsonl(facts_yaml: str) -> str:
    """The whole dataset as JSON Lines."""
    records = build_records(load_facts(facts_yaml))
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _as_text(value: object) -> str:
    """Strings as they are, everything else as YAML has it: 0.0002, true, 16."""
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    DATASET.write_text(build_jsonl(FACTS.read_text()))
