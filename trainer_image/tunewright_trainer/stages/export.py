"""export: trained weights -> an artifact with a manifest, complete or absent, readable by the serving pod."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

from tunewright_api.artifact import (
    ADAPTER_DIR,
    EVALUATION,
    MANIFEST,
    MODEL_DIR,
    REPORT_DIR,
    ArtifactError,
    Manifest,
    compute_digest,
    list_files,
    verify,
)
from tunewright_api.names import ExitCode, Stage
from tunewright_api.results import ExportResult
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import log
from tunewright_trainer.data.chat import template_digest
from tunewright_trainer.errors import StageError, not_yet
from tunewright_trainer.files import NameTakenError, create_directory, remove_tree
from tunewright_trainer.imports import skip
from tunewright_trainer.layout import Layout
from tunewright_trainer.ownership import own_manifest
from tunewright_trainer.report.write import write_report

_NOT_OURS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.gguf", "*.pt", "*.pth")
_DESCRIPTION = ("*.json", "*.jinja", "*.txt", "*.model")


def run(config: TrainerConfig) -> ExportResult:
    """Write the artifact, or report the one that this job wrote before; then remove the work directory.

    Raises:
        StageError: OUTPUT_NOT_WRITABLE when another job wrote this version.
    """
    layout = Layout(config)
    try:
        result = existing(config, layout.artifact) if layout.artifact.exists() else write(config, layout)
    except NameTakenError:
        result = existing(config, layout.artifact)
    _remove_work(layout)
    log.info("exported", **result.to_dict())
    return result


def existing(config: TrainerConfig, artifact: Path) -> ExportResult:
    """The result for an artifact that is already there: ours, unchanged; anything else is an error."""
    manifest = own_manifest(config, artifact)
    try:
        verify(artifact, manifest.digest)
    except ArtifactError as error:
        raise StageError(ExitCode.DIGEST_MISMATCH, f"{artifact}: {error}") from error
    return _result(artifact, manifest)


def write(config: TrainerConfig, layout: Layout) -> ExportResult:
    """Fill a hidden sibling of the artifact's directory and rename it.

    Raises:
        NameTakenError: Somebody else finished an artifact of this name meanwhile.
    """
    if not layout.trained.is_dir():
        raise not_yet(layout.trained, Stage.TRAIN)
    kind = "Full" if config.method.full is not None or config.export.merge else "Adapter"
    zeros = None
    with create_directory(layout.artifact, config.job.uid) as directory:
        if config.method.full is None:
            shutil.copytree(
                layout.trained, directory / ADAPTER_DIR, ignore=shutil.ignore_patterns("train.json", "README.md")
            )
        if kind == "Full":
            model = directory / MODEL_DIR
            model.mkdir()
            if config.method.full is not None and config.export.pruning is None:
                copy_weights(layout.trained, model)
            else:
                zeros = write_tuned(config, layout, model)
            copy_description(layout.base_model, model)
        if layout.evaluation.is_file():
            shutil.copyfile(layout.evaluation, directory / EVALUATION)
        _add_report(config, layout, directory / REPORT_DIR)
        files = list_files(directory)
        manifest = Manifest(
            job_uid=config.job.uid,
            kind=kind,
            adapter_type=config.method.adapter_type,
            sparsity=zeros,
            base_model=config.model.uri,
            files=files,
            digest=compute_digest(files),
            chat_template_digest=template_digest(layout.base_model),
        )
        (directory / MANIFEST).write_text(manifest.model_dump_json(by_alias=True, indent=2) + "\n")
    return _result(layout.artifact, manifest)


def _add_report(config: TrainerConfig, layout: Layout, directory: Path) -> None:
    """The model is what counts: a report that cannot be drawn is left out, and the log says why."""
    try:
        write_report(config, layout, directory)
    except (OSError, StageError):
        raise
    except Exception:
        log.LOGGER.exception("the artifact has no report: it could not be written")
        remove_tree(directory)


def write_tuned(config: TrainerConfig, layout: Layout, target: Path) -> float | None:
    """Write the tuned model, put together in float32 and rounded once to the base's dtype.

    Returns:
        The share of the pruned matrices' weights that is 0; None without pruning.
    """
    skip("datasets", "deepspeed")
    import torch

    from tunewright_trainer.methods.load import load_model
    from tunewright_trainer.methods.tuned import load_tuned
    from tunewright_trainer.pruning import prunable, sparsity
    from tunewright_trainer.weights import base_dtype

    def load(path: Path) -> Any:
        return load_model(path, dtype=torch.float32)

    model = load_tuned(config, layout, load).to(base_dtype(layout.base_model))
    model.save_pretrained(target, max_shard_size=config.export.max_shard_size)
    return None if config.export.pruning is None else round(sparsity(prunable(model)), 6)


def copy_weights(trained: Path, target: Path) -> None:
    """Hard links where the volume allows it: train already wrote the shards in their final size."""
    for path in sorted(trained.glob("*.safetensors*")):
        try:
            (target / path.name).hardlink_to(path)
        except OSError:
            shutil.copyfile(path, target / path.name)


def copy_description(base: Path, target: Path) -> None:
    """Configuration, tokenizer, chat template and generation settings exactly as in the base model."""
    ignored = {path.name for pattern in _NOT_OURS for path in base.glob(pattern)}
    for pattern in _DESCRIPTION:
        for path in base.glob(pattern):
            if path.is_file() and path.name not in ignored:
                shutil.copyfile(path, target / path.name)


def _result(artifact: Path, manifest: Manifest) -> ExportResult:
    """What the manifest says: a retry may find nothing else, because the work directory with the base model is gone."""
    size = sum(file.size for file in manifest.files) + (artifact / MANIFEST).stat().st_size
    return ExportResult(
        digest=manifest.digest,
        size_bytes=size,
        kind=manifest.kind,
        adapter_type=manifest.adapter_type,
        sparsity=manifest.sparsity,
        chat_template_digest=manifest.chat_template_digest,
    )


def _remove_work(layout: Layout) -> None:
    """The artifact is what counts: scratch that cannot be removed is not worth a failure."""
    with contextlib.suppress(OSError):
        remove_tree(layout.work)
