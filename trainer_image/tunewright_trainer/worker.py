"""One rank of a training run: `python -m tunewright_trainer.worker CONFIG`, started by torchrun or by the parent."""

import os
import sys
from pathlib import Path

from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer import config as configuration
from tunewright_trainer import log
from tunewright_trainer.errors import StageError, classify
from tunewright_trainer.guards.oom import measure_process, out_of_memory
from tunewright_trainer.imports import skip, unused
from tunewright_trainer.launch import die_with_parent
from tunewright_trainer.layout import Layout
from tunewright_trainer.rundir import RunDirectory
from tunewright_trainer.startup import Startup
from tunewright_trainer.telemetry import Telemetry


def main() -> None:
    """Train; leave an outcome file; exit at once, because a process group that lost a peer can hang on its way out."""
    startup = Startup.from_environment(os.environ)
    startup.end("launch")
    die_with_parent()
    run_directory = RunDirectory.from_environment()
    rank = int(os.environ.get("RANK", "0"))
    config = configuration.load(Path(sys.argv[1]), TrainerConfig)
    log.setup(stage="train", job=f"{config.job.namespace}/{config.job.name}", rank=rank)
    try:
        _train(config, run_directory, rank, startup)
        code = ExitCode.OK
    except Exception as error:
        named = classify(error, Layout(config).outputs, training=True)
        if named.code is ExitCode.OUT_OF_MEMORY:
            named = out_of_memory(config, measure_process(), rank)
        if not isinstance(error, StageError):
            log.LOGGER.exception("training failed: %s", named.message)
        named.rank = rank
        run_directory.write_error(rank, named)
        code = named.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code))


def _train(config: TrainerConfig, run_directory: RunDirectory, rank: int, startup: Startup) -> None:
    telemetry = Telemetry(config.job) if rank == 0 else None
    if telemetry:
        # Before torch is imported: /progress answers from the pod's first second.
        try:
            telemetry.serve(config.port)
        except OSError as error:
            raise StageError(
                ExitCode.INTERNAL,
                f"cannot answer GET /metrics and /progress on port {config.port} ({error.strerror}): end the process "
                "that has this port, or write another one into the configuration's field port",
            ) from error

    skip(*unused(config))

    import transformers

    from tunewright_trainer.recipe import Recipe

    transformers.utils.logging.disable_progress_bar()
    startup.end("imports")
    recipe = Recipe(config, run_directory, telemetry, startup)
    recipe.setup()
    result = recipe.train()
    run_directory.write_result(rank, result)
    recipe.cleanup()


if __name__ == "__main__":
    main()
