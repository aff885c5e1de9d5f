"""Whose artifact is it? Versions never change, so only the job that wrote one may meet it again."""

from pathlib import Path

from tunewright_api.artifact import MANIFEST, Manifest
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.errors import StageError


def own_manifest(config: TrainerConfig, artifact: Path) -> Manifest:
    """The manifest of an artifact that is there and that this job wrote.

    Raises:
        StageError: OUTPUT_NOT_WRITABLE for anything else.
    """
    try:
        manifest = Manifest.model_validate_json((artifact / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        manifest = None
    if manifest is None or manifest.job_uid != config.job.uid:
        owner = f"written by the job with uid {manifest.job_uid}" if manifest else "not an artifact of this job"
        raise StageError(
            ExitCode.OUTPUT_NOT_WRITABLE,
            f"{artifact} already exists and is {owner}: choose a new output.version in a FineTuneJob with a new name",
        )
    return manifest
