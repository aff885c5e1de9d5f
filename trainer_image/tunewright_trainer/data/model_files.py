"""What must be in a model directory, read without torch and transformers."""

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunewright_api.names import ExitCode
from tunewright_trainer.errors import StageError

_WEIGHTS = "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_WIDTHS = ("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size")
_EMBEDDINGS = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings", "embeddings", "tok_embeddings"})
"""What architectures call the module of their token embedding."""

_TYPES = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"


@dataclass(frozen=True)
class ModelFiles:
    """What the files of a model say of it.

    Attributes:
        path: The model directory.
        config: config.json.
        shapes: Shape of each tensor in the weights, by its name there.
    """

    path: Path
    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    @property
    def text(self) -> dict[str, Any]:
        """The part of config.json that describes the language model."""
        return {**self.config, **(self.config.get("text_config") or {})}

    @property
    def model_type(self) -> str:
        """The architecture."""
        return str(self.config.get("model_type"))

    @property
    def embeddings(self) -> list[str]:
        """Modules that may be the token embedding: one, or several where the model reads more than text."""
        return [module for module in self.matrices if module.rpartition(".")[2] in _EMBEDDINGS]

    @property
    def matrices(self) -> list[str]:
        """Modules whose weight is a matrix."""
        return [name.removesuffix(".weight") for name, shape in self.shapes.items() if _is_matrix(name, shape)]


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    return name.endswith(".weight") and len(shape) == 2


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if the file is absent.

    Raises:
        StageError: INPUT_NOT_READABLE if it is something else.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, error) from error
    if not isinstance(value, dict):
        raise damaged(path, ValueError("no JSON object"))
    return value


def read_model(path: Path) -> ModelFiles:
    """Read config.json and the headers of the weights, and compare them.

    Raises:
        StageError: INPUT_NOT_READABLE for files that are missing, damaged, or of different models; INVALID_CONFIG for
            an architecture that transformers does not know.
    """
    config = read_json(path / "config.json")
    files = ModelFiles(path, config, read_shapes(path))
    _check_type(files)
    _check_layers(files)
    _check_embedding(files)
    return files


def read_shapes(model: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor in the files that transformers would load.

    Raises:
        StageError: INPUT_NOT_READABLE for files that are missing or damaged.
    """
    if (model / _WEIGHTS).is_file():
        return _read_header(model / _WEIGHTS)
    index = model / _INDEX
    if not index.is_file():
        raise _no_weights(model, f"it has neither {_WEIGHTS} nor an index of several such files")
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise damaged(index, ValueError("no weight_map"))
    shards = sorted(set(map(str, files.values())))
    missing = [shard for shard in shards if not (model / shard).is_file()]
    if missing:
        listed = ", ".join(missing[:3])
        raise _no_weights(model, f"of the {len(shards)} files in {index.name} {len(missing)} are missing ({listed})")
    headers = {shard: _read_header(model / shard) for shard in shards}
    for name, shard in files.items():
        if name not in headers[str(shard)]:
            raise _no_weights(model, f"{index.name} says that {name} is in {shard}, and it is not")
    return {name: shape for header in headers.values() for name, shape in header.items()}


def _read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensors of a safetensors file: 8 bytes with the length of a JSON object, the object, the data."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            raise damaged(path, ValueError(f"no safetensors file, or cut off: {size} bytes that begin with {start!r}"))
        try:
            header = json.loads(file.read(length))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
            shapes = {name: tuple(entry["shape"]) for name, entry in tensors.items()}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise damaged(path, ValueError("its header is no list of tensors")) from error
    if end != size:
        raise damaged(path, ValueError(f"it has {size} bytes, and its header describes {end}"))
    return shapes


def _check_type(files: ModelFiles) -> None:
    known = causal_types()
    if known and files.model_type not in known:
        named = f"models of type {files.model_type}" if "model_type" in files.config else "a model without model_type"
        raise StageError(
            ExitCode.INVALID_CONFIG,
            f"{files.path}/config.json: transformers {version('transformers')} of this image cannot train {named}: use "
            "a causal language model of an architecture that it has",
        )


def _check_layers(files: ModelFiles) -> None:
    """Whether some stack of layers is complete; there are several where the model reads more than text."""
    wanted = next((int(files.text[key]) for key in _LAYERS if files.text.get(key)), None)
    stacks = layers(files.shapes)
    if wanted is None or not stacks or any(numbers.issuperset(range(wanted)) for numbers in stacks.values()):
        return
    prefix, numbers = max(stacks.items(), key=lambda item: len(item[1]))
    raise _no_weights(
        files.path,
        f"config.json describes {wanted} layers, and the weights have {len(numbers)} ({prefix}.{min(numbers)} to "
        f"{prefix}.{max(numbers)})",
    )


def layers(names: Iterable[str]) -> dict[str, set[int]]:
    """Numbers of the repeated modules by what stands before them: model.layers.3.mlp.up.weight -> model.layers, 3."""
    found: dict[str, set[int]] = defaultdict(set)
    for name in names:
        if match := re.match(r"(.+?)\.(\d+)\.", name):
            found[match[1]].add(int(match[2]))
    return found


def _check_embedding(files: ModelFiles) -> None:
    shapes = {name: files.shapes[f"{name}.weight"] for name in files.embeddings}
    rows = files.text.get("vocab_size")
    widths = {key: files.text[key] for key in _WIDTHS if files.text.get(key)}
    for axis, wanted in ((0, {"vocab_size": rows} if rows else {}), (1, widths)):
        if not wanted or not shapes or any(shape[axis] in wanted.values() for shape in shapes.values()):
            continue
        name, shape = next(iter(shapes.items()))
        key, value = next(iter(wanted.items()))
        raise _no_weights(
            files.path,
            f"config.json says {key} {value}, and {name}.weight has {shape[axis]} {('rows', 'columns')[axis]}",
        )


@cache
def causal_types() -> frozenset[str]:
    """Values of model_type that AutoModelForCausalLM knows; read from the source, whose import takes seconds and torch.

    Empty if they are not where they were in transformers 5.
    """
    found = find_spec("transformers")
    source = Path(found.origin).parent / "models/auto/modeling_auto.py" if found and found.origin else None
    if source is None or not source.is_file():
        return frozenset()
    for node in ast.parse(source.read_bytes()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == _TYPES and isinstance(node.value, ast.Call):
            return frozenset(name for name, _ in ast.literal_eval(node.value.args[0]))
    return frozenset()


def _no_weights(model: Path, why: str) -> StageError:
    return StageError(
        ExitCode.INPUT_NOT_READABLE, f"cannot read {model}: {why}: copy the model again, with weights in safetensors"
    )


def damaged(path: Path, error: Exception) -> StageError:
    """A file of a model that is not what its name says."""
    return StageError(
        ExitCode.INPUT_NOT_READABLE,
        f"cannot read {path}: it is damaged ({str(error).splitlines()[0][:200]}): copy it from the model again",
    )
