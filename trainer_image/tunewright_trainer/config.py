"""Read and check the configuration file."""

import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tunewright_api.base import Model
from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError
from tunewright_trainer.rules import violations

ConfigT = TypeVar("ConfigT", bound=Model)
_SHOWN = 5
_CLOSE = 0.6
_NOUNS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "string": "a text in quotes",
    "list": "a list, [ … ]",
    "dict": "an object, { … }",
    "model": "an object, { … }",
}


def load(path: Path, model: type[ConfigT]) -> ConfigT:
    """Parse the file as `model`, and hold it against the rules of the model.

    Raises:
        StageError: INVALID_CONFIG, naming the file, the path of each wrong field and what to write instead.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"cannot read the configuration {path}: {error.strerror}; mount it there or pass --config FILE",
        ) from error
    try:
        config = model.model_validate_json(content)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise _invalid(path, [_sentence(found, model) for found in details]) from error
    if broken := violations(config):
        raise _invalid(path, broken)
    return config


def _invalid(path: Path, sentences: Sequence[str]) -> StageError:
    """The first five of them."""
    more = [f"and {len(sentences) - _SHOWN} more"] if len(sentences) > _SHOWN else []
    return StageError(ExitCode.INVALID_CONFIG, f"{path}: {'; '.join([*sentences[:_SHOWN], *more])}")


def _sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    """`field.path: what to write`."""
    kind, loc, context = error["type"], error["loc"], error.get("ctx", {})
    where = ".".join(map(str, loc)) or "the file"
    if kind == "json_invalid":
        return f"the file is not valid JSON ({context['error']}): write one JSON object (YAML is not read)"
    if kind == "extra_forbidden":
        return _unknown(str(loc[-1]), ".".join(map(str, loc[:-1])), _fields(model, loc[:-1]))
    if kind == "missing":
        return f"{where} is missing: add it"
    wanted = _wanted(kind, context)
    return f"{where}: write {wanted}, not {_given(error['input'])}" if wanted else f"{where}: {error['msg']}"


def _unknown(name: str, where: str, known: Sequence[str]) -> str:
    place = f"{where}: " if where else ""
    spelled = {field.lower(): field for field in known}
    close = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=_CLOSE)
    advice = f"did you mean {spelled[close[0]]}?" if close else f"remove it; known are {', '.join(sorted(known))}"
    return f"{place}unknown field {name}: {advice}"


def _wanted(kind: str, context: dict[str, Any]) -> str | None:
    """What a field takes; None for a kind of error that pydantic's own words tell well."""
    bounds = {
        "greater_than": "more than {gt}",
        "greater_than_equal": "{ge} or more",
        "less_than": "less than {lt}",
        "less_than_equal": "{le} or less",
        "too_short": "a list of {min_length} or more",
        "too_long": "a list of {max_length} or fewer",
        "string_too_short": "a text of {min_length} or more characters",
        "string_too_long": "a text of {max_length} or fewer characters",
        "string_pattern_mismatch": "a text that matches {pattern}",
        "enum": "{expected}",
        "literal_error": "{expected}",
    }
    if kind in bounds:
        plain = {key: f"{value:g}" if isinstance(value, float) else value for key, value in context.items()}
        return bounds[kind].format(**plain).replace("'", "")
    noun, _, rest = kind.partition("_")
    return _NOUNS.get(noun) if rest in {"type", "parsing", "from_float", "number", "attributes_type"} else None


def _given(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _fields(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The fields of the object at a path of the file."""
    for step in path:
        if isinstance(step, str):
            field = next((f for name, f in model.model_fields.items() if step in (f.alias, name)), None)
            model = next(_models(field.annotation if field else None), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
