"""prepare: check the model and the data, split, tokenize. Runs on a CPU before any GPU is queued."""

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tunewright_api.dataset import DatasetFormat
from tunewright_api.names import ExitCode
from tunewright_api.results import PrepareResult
from tunewright_api.trainer_config import ModelInput, TrainerConfig
from tunewright_trainer import log
from tunewright_trainer.data import store
from tunewright_trainer.data.account import Fate
from tunewright_trainer.data.build import VALIDATION, Built, Source, build_dataset, encode_example
from tunewright_trainer.data.fit import check_fit, remarks
from tunewright_trainer.data.locate import locate
from tunewright_trainer.data.model_files import read_model
from tunewright_trainer.data.records import Problem, invalid_data, read_records
from tunewright_trainer.data.rows import RowRule
from tunewright_trainer.data.statistics import describe
from tunewright_trainer.data.tokens import ChatEncoder, Encoded, divide, load_encoder
from tunewright_trainer.errors import StageError, not_readable
from tunewright_trainer.estimate import report_estimate
from tunewright_trainer.evaluation.compare import plan_figures
from tunewright_trainer.evaluation.tasks import check_tasks
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
    layout.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.work, prefix=".source-") as scratch:
        sources = locate(config.dataset, Path(scratch))
        encoder = check_model(config, layout)
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
        notes=[*remarks(config, read_model(layout.base_model)), *(note.text() for note in built.notes)][
            :MAX_STATUS_NOTES
        ],
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
    write_other_inputs(config, layout, encoder, directory)
    return built


def write_other_inputs(config: TrainerConfig, layout: Layout, encoder: ChatEncoder, directory: Path) -> None:
    """Check what objective and evaluation need besides the dataset, and write their records beside it.

    Raises:
        StageError: INVALID_CONFIG for a figure that the held-out records cannot give, a task that is not there and a
            teacher of another vocabulary; INVALID_DATA and INPUT_NOT_READABLE of the files.
    """
    length = config.hyperparameters.sequence_length
    plan_figures(config.evaluation, store.read(directory / VALIDATION))
    if config.evaluation.harness and config.evaluation_inputs.harness:
        check_tasks(config.evaluation.harness.tasks, Path(config.evaluation_inputs.harness))
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


def check_model(config: TrainerConfig, layout: Layout) -> ChatEncoder:
    """Make sure that the base model is there and can do what the job asks of it; its tokenizer and template.

    Raises:
        StageError: INPUT_NOT_READABLE or INVALID_CONFIG.
    """
    resolve_model(config.model, layout)
    files = read_model(layout.base_model)
    check_division(config, layout.base_model)
    check_fit(config, files)
    for remark in remarks(config, files):
        log.warning(remark)
    encoder = load_encoder(layout.base_model)
    encoder.check(chat=any(part.format is not DatasetFormat.TEXT for part in config.dataset.sources))
    return encoder


def resolve_model(model: ModelInput, layout: Layout) -> None:
    """Make sure that the base model is a directory with a configuration and weights; download an hf:// model once."""
    if model.path is None and not layout.base_model.is_dir():
        download(model, layout.base_model)
    directory = layout.base_model
    if not directory.is_dir():
        raise not_readable(directory, f"baseModel.uri {model.uri} is not a directory")
    if not (directory / "config.json").is_file():
        raise not_readable(directory / "config.json", f"{model.uri} is not a Hugging Face model directory")
    read_model(directory)


def download(model: ModelInput, target: Path) -> None:
    """Fetch an hf:// model into `target`, complete or absent."""
    from httpx2 import HTTPError
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    assert model.hub_id, "a rule of ModelInput"
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
    except (HTTPError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise StageError(
            ExitCode.INPUT_NOT_READABLE,
            f"cannot download {model.uri} from {constants.ENDPOINT} ({str(error).splitlines()[0][:200]}): allow this "
            "pod to reach it, set HF_ENDPOINT to a mirror, or copy the model to a claim and use pvc://",
        ) from error
