"""prepare: check the model and the data, split, tokenize. Runs on a CPU before any GPU is queued."""

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tunewright_api.dataset import SPLIT_NEEDS_TEXT, DatasetFormat, LongRecordPolicy
from tunewright_api.names import ExitCode
from tunewright_api.results import PrepareResult
from tunewright_api.trainer_config import ModelInput, TrainerConfig
from tunewright_trainer import log
from tunewright_trainer.data import store
from tunewright_trainer.data.account import Fate
from tunewright_trainer.data.build import VALIDATION, Built, Source, build_dataset, encode_example
from tunewright_trainer.data.locate import locate
from tunewright_trainer.data.model_files import check_weights, read_json
from tunewright_trainer.data.records import Problem, invalid_data, read_records
from tunewright_trainer.data.rows import RowRule
from tunewright_trainer.data.statistics import describe
from tunewright_trainer.data.tokens import ChatEncoder, Encoded, divide, load_encoder
from tunewright_trainer.errors import StageError, not_readable
from tunewright_trainer.estimate import report_estimate
from tunewright_trainer.evaluation.compare import plan_figures
from tunewright_trainer.files import replace_directory
from tunewright_trainer.layout import Layout
from tunewright_trainer.objectives.teacher import check_teacher
from tunewright_trainer.ownership import own_manifest
from tunewright_trainer.parallel.division import check_division

MAX_STATUS_NOTES = 5
_HUB_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.model", "*.txt"]


def run(config: TrainerConfig) -> PrepareResult:
    """Read and check everything that the later stages need, and write the split.

    Raises:
        StageError: INVALID_DATA, INPUT_NOT_READABLE or INVALID_CONFIG, naming file, line and remedy;
            OUTPUT_NOT_WRITABLE when export would find the name of the artifact taken.
    """
    layout = Layout(config)
    if layout.artifact.exists():
        own_manifest(config, layout.artifact)
    check_formats(config)
    layout.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.work, prefix=".source-") as scratch:
        sources = locate(config.dataset, Path(scratch))
        resolve_model(config.model, layout)
        check_division(config, layout.base_model)
        encoder = load_encoder(layout.base_model)
        encoder.check(chat=any(part.format is not DatasetFormat.TEXT for part in config.dataset.sources))
        with replace_directory(layout.dataset) as directory:
            built = write_dataset(config, layout, sources, encoder, directory)
    account = built.account
    result = PrepareResult(
        records=account.read,
        train=account.train,
        validation=account.held_out,
        truncated=account.counts[Fate.FIXED, RowRule.TRUNCATED],
        divided=account.counts[Fate.FIXED, RowRule.SPLIT],
        pieces=account.pieces,
        duplicates=built.duplicates,
        dropped=account.total(Fate.DROPPED),
        quarantined=account.total(Fate.QUARANTINED),
        notes=[note.text() for note in built.notes[:MAX_STATUS_NOTES]],
        digest=built.digest,
        estimate=report_estimate(config),
    )
    log.info("dataset ready", **result.to_dict())
    return result


def write_dataset(
    config: TrainerConfig, layout: Layout, sources: Sequence[Source], encoder: ChatEncoder, directory: Path
) -> Built:
    """Fill the directory that becomes `layout.dataset`."""
    length, seed = config.hyperparameters.sequence_length, config.hyperparameters.seed
    built = build_dataset(config.dataset, sources, encoder, directory, sequence_length=length, seed=seed)
    report = describe(directory, built, encoder, seed)
    (directory / layout.dataset_report.name).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    plan_figures(config.evaluation, store.read(directory / VALIDATION))
    if config.evaluation.general and config.evaluation_inputs.general:
        general = Path(config.evaluation_inputs.general)
        target = directory / layout.general_records.relative_to(layout.dataset)
        write_whole(general, config.evaluation.general.format, encoder, length, target)
    supervised, given = config.objective.supervised, config.objective_inputs
    if supervised and supervised.ewc and given.reference:
        reference = Path(given.reference)
        target = directory / layout.reference_records.relative_to(layout.dataset)
        write_whole(reference, supervised.ewc.reference.format, encoder, length, target)
    if given.teacher:
        check_teacher(Path(given.teacher), layout.base_model)
    return built


def check_formats(config: TrainerConfig) -> None:
    """Whether objective, method and rules can work on records of the declared formats.

    Raises:
        StageError: INVALID_CONFIG.
    """
    formats = {part.format for part in config.dataset.sources}
    if config.dataset.on_long_record is LongRecordPolicy.SPLIT and formats != {DatasetFormat.TEXT}:
        raise StageError(ExitCode.INVALID_CONFIG, SPLIT_NEEDS_TEXT)
    method = config.method
    if config.hyperparameters.packing and (method.prefix_tuning or method.adapter or config.objective.dpo):
        raise StageError(
            ExitCode.INVALID_CONFIG,
            "hyperparameters.packing puts several records into one row, which method.prefixTuning, method.adapter and "
            "objective.dpo cannot do: set it to false",
        )
    if (DatasetFormat.PREFERENCE in formats) != (config.objective.dpo is not None):
        raise StageError(
            ExitCode.INVALID_CONFIG,
            "objective.dpo learns from pairs and every other objective from answers: use dataset.format Preference "
            "with objective.dpo, and only there",
        )


def write_whole(
    source: Path, dataset_format: DatasetFormat, encoder: ChatEncoder, sequence_length: int, target: Path
) -> None:
    """Tokenize the records of a file none of which is held out: documents in pieces, other records cut."""
    documents = dataset_format is DatasetFormat.TEXT
    limit = sys.maxsize if documents else sequence_length
    rows = [(record, encode_example(record, encoder, limit)) for record in read_records(source, dataset_format)]
    problems = [encoded for _, encoded in rows if isinstance(encoded, Problem)]
    if problems:
        raise invalid_data(source, problems)
    right = [(record, encoded) for record, encoded in rows if isinstance(encoded, Encoded)]
    if cut := sum(encoded.truncated for _, encoded in right):
        log.warning("records are longer than sequenceLength and are cut", path=str(source), records=cut)
    store.write(
        target,
        [
            store.prepared(record.line, record.messages, piece)
            for record, encoded in right
            for piece in (divide(encoded, sequence_length) if documents else [encoded])
        ],
    )


def resolve_model(model: ModelInput, layout: Layout) -> None:
    """Make sure that the base model is a directory with a configuration and weights; download an hf:// model once."""
    if model.path is None and not layout.base_model.is_dir():
        download(model, layout.base_model)
    directory = layout.base_model
    if not directory.is_dir():
        raise not_readable(directory, f"baseModel.uri {model.uri} is not a directory")
    if not (directory / "config.json").is_file():
        raise not_readable(directory / "config.json", f"{model.uri} is not a Hugging Face model directory")
    read_json(directory / "config.json")
    check_weights(directory)


def download(model: ModelInput, target: Path) -> None:
    """Fetch an hf:// model into `target`, complete or absent."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if not model.hub_id:
        raise StageError(ExitCode.INVALID_CONFIG, "model: neither path nor hubId is set")
    log.info("downloading the base model", model=model.hub_id, revision=model.revision)
    try:
        with replace_directory(target) as temporary:
            snapshot_download(model.hub_id, revision=model.revision, local_dir=temporary, allow_patterns=_HUB_PATTERNS)
            shutil.rmtree(temporary / ".cache", ignore_errors=True)
    except GatedRepoError as error:
        raise StageError(
            ExitCode.INPUT_NOT_READABLE,
            f"{model.uri} is gated: accept its licence on huggingface.co and set baseModel.secretRef to a Secret with "
            "HF_TOKEN",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise StageError(
            ExitCode.INPUT_NOT_READABLE,
            f"{model.uri} (revision {model.revision or 'default'}) does not exist or is private: check the name, or "
            "set baseModel.secretRef to a Secret with HF_TOKEN",
        ) from error
    except (ConnectionError, TimeoutError) as error:
        raise StageError(ExitCode.INTERNAL, f"cannot reach huggingface.co to download {model.uri}: {error}") from error
