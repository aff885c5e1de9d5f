"""`tunewright-trainer STAGE`: one stage of a fine-tuning job, in one container.

python -m tunewright_trainer prepare --config config.json
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from tunewright_api.names import CONFIG_DIR, CONFIG_FILE, ExitCode, Stage
from tunewright_api.results import Outcome, StageResult
from tunewright_api.trainer_config import TrainerConfig, VerifyConfig
from tunewright_trainer import config as configuration
from tunewright_trainer import log
from tunewright_trainer.errors import PreemptedError, StageError, classify
from tunewright_trainer.layout import Layout
from tunewright_trainer.outcome import failure, write_termination_message

_EPILOG = f"""\
stages, in order:
  prepare   check the base model and every line of the dataset, split it, tokenize it
  train     LoRA or full fine-tuning under torchrun; resumes from the newest checkpoint; /metrics, /progress
  evaluate  figures of the base and the tuned model on the held-out records, by a judge, on benchmarks
  export    merge, write safetensors, a report and a manifest with SHA-256 digests, remove the work directory
  verify    recompute the digest of an exported artifact (its config: artifact, digest)

for people:
  config      print the run as a configuration file of accelerate or DeepSpeed (see config --help)
  check-data  read the dataset as prepare does, on a machine with the base model, and print counts, lengths, copies,
              leaks into the held-out rows and the first 20 wrong rows; writes nothing, exits as prepare would

The result, or the reason of a failure, is one JSON object in $TERMINATION_LOG_PATH (/dev/termination-log).

exit codes:
  {", ".join(f"{int(code)} {code.reason if code else 'Succeeded'}" for code in ExitCode)}
"""

CHECK_DATA = "check-data"
"""No stage of a job, but for people."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="tunewright-trainer",
        description="Run one stage of a fine-tuning job: configuration file in, files and a termination message out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stages = [*(stage.value for stage in Stage), CHECK_DATA]
    parser.add_argument("stage", choices=stages, metavar="STAGE", help="see below")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(CONFIG_DIR) / CONFIG_FILE,
        metavar="FILE",
        help="configuration file (default: %(default)s)",
    )
    return parser


def run_stage(stage: Stage, path: Path) -> StageResult:
    """Run a stage; raises StageError for every failure that has a name."""
    if stage is Stage.VERIFY:
        from tunewright_trainer.stages import verify

        check = configuration.load(path, VerifyConfig)
        try:
            return StageResult(outcome=Outcome.SUCCEEDED, verify=verify.run(check))
        except OSError as error:
            raise classify(error, outputs=[]) from error
    config = configuration.load(path, TrainerConfig)
    log.setup(stage=stage.value, job=f"{config.job.namespace}/{config.job.name}")
    try:
        return _RUNNERS[stage](config, path)
    except Exception as error:
        raise classify(error, Layout(config).outputs, training=stage is Stage.TRAIN) from error


def _prepare(config: TrainerConfig, _: Path) -> StageResult:
    from tunewright_trainer.stages import prepare

    return StageResult(outcome=Outcome.SUCCEEDED, prepare=prepare.run(config))


def _train(config: TrainerConfig, path: Path) -> StageResult:
    from tunewright_trainer.stages import train

    return StageResult(outcome=Outcome.SUCCEEDED, train=train.run(config, path))


def _evaluate(config: TrainerConfig, _: Path) -> StageResult:
    from tunewright_trainer.stages import evaluate

    return StageResult(outcome=Outcome.SUCCEEDED, evaluate=evaluate.run(config))


def _export(config: TrainerConfig, _: Path) -> StageResult:
    from tunewright_trainer.stages import export

    return StageResult(outcome=Outcome.SUCCEEDED, export=export.run(config))


_RUNNERS: dict[Stage, Callable[[TrainerConfig, Path], StageResult]] = {
    Stage.PREPARE: _prepare,
    Stage.TRAIN: _train,
    Stage.EVALUATE: _evaluate,
    Stage.EXPORT: _export,
}


class _Stopped(BaseException):
    """SIGTERM arrived. No Exception: a library that catches those to go on must not go on."""


def _stop(signum: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Stopped


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: run the stage, leave the termination message, exit with a named code."""
    argv = sys.argv[1:] if argv is None else argv
    if list(argv[:1]) == ["config"]:
        from tunewright_trainer import print_config

        sys.exit(print_config.main(argv[1:]))
    arguments = build_parser().parse_args(argv)
    if arguments.stage == CHECK_DATA:
        sys.exit(_check_data(arguments.config))
    stage = Stage(arguments.stage)
    log.setup(stage=stage.value)
    # The first process of a container ignores SIGTERM unless it asks for it; train replaces this by its own handler.
    signal.signal(signal.SIGTERM, _stop)
    try:
        result, error = _attempt(stage, arguments.config)
        # The stage has ended: from now on a signal must not keep its result from being written.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except _Stopped:
        error = PreemptedError(
            "stopped by SIGTERM: nothing half-written is left, the stage starts again from its beginning"
        )
        result = failure(error)
    code = error.code if error else ExitCode.OK
    if error:
        log.LOGGER.error(error.message, extra={"fields": {"reason": code.reason, "exitCode": int(code)}})
        _log_unexpected(error, error.__cause__)
    write_termination_message(result)
    sys.stdout.flush()
    sys.stderr.flush()
    # Tearing down an interpreter that holds torch takes seconds, and nothing is left to do.
    os._exit(int(code))


def _check_data(path: Path) -> ExitCode:
    from tunewright_trainer.stages import check_data

    try:
        findings = check_data.run(configuration.load(path, TrainerConfig))
    except Exception as error:
        named = classify(error, outputs=[])
        print(named.message, file=sys.stderr)
        _log_unexpected(named, error)
        return named.code
    print(findings.text)
    return findings.code


def _log_unexpected(named: StageError, cause: BaseException | None) -> None:
    """The traceback of what has no name, below the sentence that a user reads first."""
    if named.code is ExitCode.INTERNAL and cause is not None and cause is not named:
        log.LOGGER.error("unexpected error", exc_info=cause)


def _attempt(stage: Stage, path: Path) -> tuple[StageResult, StageError | None]:
    try:
        return run_stage(stage, path), None
    except StageError as error:
        return failure(error), error


if __name__ == "__main__":
    main()
