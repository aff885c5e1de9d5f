"""Where each stage finds what the one before it left, below `directories.work`."""

from dataclasses import dataclass
from pathlib import Path

from tunewright_api.artifact import EVALUATION
from tunewright_api.trainer_config import TrainerConfig


@dataclass(frozen=True)
class Layout:
    """Paths of one job.

    work/
      base-model/             an hf:// model (prepare)
      dataset/                the prepared records, and train.npy and validation.npy, the split (prepare)
      dataset/account.json    what became of every row; rows.jsonl has those that are not unchanged (prepare)
      dataset/general/        the general set, and reference/ what EWC keeps (prepare)
      dataset/report.json     what the data is like, for the report (prepare)
      checkpoints/step-N/     training state, complete or absent (train)
      steps.jsonl             every optimizer step; tensorboard/ has the same as event files (train)
      environment.json        what it ran on (train)
      trained/                full weights or the adapter, and train.json (train)
      measured.json           what evaluate has measured already, until it is done
      evaluation.json         figures and samples (evaluate)
    """

    config: TrainerConfig

    @property
    def work(self) -> Path:
        return Path(self.config.directories.work)

    @property
    def artifact(self) -> Path:
        return Path(self.config.directories.artifact)

    @property
    def base_model(self) -> Path:
        path = self.config.model.path
        return Path(path) if path else self.work / "base-model"

    @property
    def dataset(self) -> Path:
        return self.work / "dataset"

    @property
    def train_records(self) -> Path:
        return self.dataset / "train.npy"

    @property
    def validation_records(self) -> Path:
        return self.dataset / "validation.npy"

    @property
    def general_records(self) -> Path:
        return self.dataset / "general" / "all.npy"

    @property
    def reference_records(self) -> Path:
        return self.dataset / "reference" / "all.npy"

    @property
    def checkpoints(self) -> Path:
        return self.work / "checkpoints"

    @property
    def dataset_report(self) -> Path:
        return self.dataset / "report.json"

    @property
    def steps(self) -> Path:
        return self.work / "steps.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.work / "tensorboard"

    @property
    def environment(self) -> Path:
        return self.work / "environment.json"

    @property
    def trained(self) -> Path:
        return self.work / "trained"

    @property
    def train_result(self) -> Path:
        return self.trained / "train.json"

    @property
    def evaluation(self) -> Path:
        return self.work / EVALUATION

    @property
    def measured(self) -> Path:
        return self.work / "measured.json"

    @property
    def outputs(self) -> list[Path]:
        """Directories that stages write to."""
        return [self.work, self.artifact]
