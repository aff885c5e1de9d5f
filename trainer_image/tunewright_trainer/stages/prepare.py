"""prepare: check the model and the data, split, tokenize. Runs on a CPU before any GPU is queued."""

import shutil
from pathlib import Path

from tunewright_api.artifact import sha256_file
from tunewright_api.dataset import DatasetFormat
from tunewright_api.names import ExitCode
from tunewright_api.results import PrepareResult
from tunewright_api.trainer_config import ModelInput, TrainerConfig
from tunewright_trainer import log
from tunewright_trainer.data import store
from tunewright_trainer.data.chat import TemplateRenderError
from tunewright_trainer.data.records import Problem, Record, invalid_data, read_records
from tunewright_trainer.data.split import split
from tunewright_trainer.data.tokens import ChatEncoder, Encoded, load_encoder
from tunewright_trainer.errors import StageError, not_readable
from tunewright_trainer.estimate import report_estimate
from tunewright_trainer.evaluation.compare import plan_figures
from tunewright_trainer.files import replace_directory
from tunewright_trainer.layout import Layout
from tunewright_trainer.objectives.teacher import check_teacher
from tunewright_trainer.ownership import own_manifest

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
    source = Path(config.dataset.path)
    records = read_records(source, config.dataset.format)
    if len(records) < 2:
        raise StageError(
            ExitCode.INVALID_DATA,
            f"{source} has one record: at least two are needed, one to train on and one to hold out",
        )
    layout.work.mkdir(parents=True, exist_ok=True)
    resolve_model(config.model, layout)
    encoder = load_encoder(layout.base_model)
    length = config.hyperparameters.sequence_length
    pairs = encode_all(source, records, encoder, length)
    prepared = [store.prepared(record.line, record.messages, encoded) for record, encoded in pairs]
    train, validation = split(prepared, config.dataset.validation_percent, config.hyperparameters.seed)
    store.write(layout.train_records, train)
    store.write(layout.validation_records, validation)
    plan_figures(config.evaluation, validation)
    if config.evaluation.general and config.evaluation_inputs.general:
        general = Path(config.evaluation_inputs.general)
        write_whole(general, config.evaluation.general.format, encoder, length, layout.general_records)
    supervised, given = config.objective.supervised, config.objective_inputs
    if supervised and supervised.ewc and given.reference:
        reference = Path(given.reference)
        write_whole(reference, supervised.ewc.reference.format, encoder, length, layout.reference_records)
    if given.teacher:
        check_teacher(Path(given.teacher), layout.base_model)
    result = PrepareResult(
        records=len(records),
        train=len(train),
        validation=len(validation),
        truncated=sum(encoded.truncated for _, encoded in pairs),
        digest="sha256:" + sha256_file(source),
        estimate=report_estimate(config),
    )
    log.info("dataset ready", **result.to_dict())
    return result


def write_whole(
    source: Path, dataset_format: DatasetFormat, encoder: ChatEncoder, sequence_length: int, target: Path
) -> None:
    """Tokenize the records of a file that is not split."""
    rows = encode_all(source, read_records(source, dataset_format), encoder, sequence_length)
    store.write(target, [store.prepared(row.line, row.messages, encoded) for row, encoded in rows])


def encode_all(
    source: Path, records: list[Record], encoder: ChatEncoder, sequence_length: int
) -> list[tuple[Record, Encoded]]:
    """Tokenize every record; one that the template refuses, or whose answer is cut off, is an error with its line."""
    pairs, problems = [], []
    for record in records:
        try:
            encoded = encoder.encode(record.messages, sequence_length)
        except TemplateRenderError as error:
            problems.append(Problem(record.line, f"the model's chat template refuses it: {error}"))
            continue
        if not encoded.answer_tokens:
            problems.append(
                Problem(
                    record.line,
                    f"the prompt alone fills hyperparameters.sequenceLength ({sequence_length} tokens), so nothing of "
                    "the answer is left to learn: raise sequenceLength or shorten the prompt",
                )
            )
        pairs.append((record, encoded))
    if problems:
        raise invalid_data(source, problems)
    return pairs


def resolve_model(model: ModelInput, layout: Layout) -> None:
    """Make sure that the base model is a directory with a configuration; download an hf:// model once."""
    if model.path is None and not layout.base_model.is_dir():
        download(model, layout.base_model)
    directory = layout.base_model
    if not directory.is_dir():
        raise not_readable(directory, f"baseModel.uri {model.uri} is not a directory")
    if not (directory / "config.json").is_file():
        raise not_readable(directory / "config.json", f"{model.uri} is not a Hugging Face model directory")
    (directory / "config.json").read_bytes()


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
