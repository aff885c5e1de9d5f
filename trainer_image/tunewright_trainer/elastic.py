"""torchrun, but for one thing: how its workers died is written down for the parent instead of lost in an exit 1."""

import sys

from tunewright_api.names import ExitCode
from tunewright_trainer import log
from tunewright_trainer.errors import StageError, classify
from tunewright_trainer.launch import die_with_parent
from tunewright_trainer.rundir import RunDirectory


def main() -> None:
    """Run torchrun's own agent with torchrun's own arguments."""
    die_with_parent()
    run_directory = RunDirectory.from_environment()
    log.setup(stage="train", process="torchrun")

    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(sys.argv[1:]))
    except ChildFailedError as error:
        run_directory.write_deaths({rank: failure.exitcode for rank, failure in error.failures.items()})
        sys.exit(1)
    except Exception as error:
        if not run_directory.outcomes():
            run_directory.write_error(-1, _rendezvous_error(error))
        sys.exit(1)


def _rendezvous_error(error: Exception) -> StageError:
    named = classify(error, [], training=True)
    if named.code is not ExitCode.PEER_LOST:
        return named
    return StageError(ExitCode.PEER_LOST, f"the pods of this run did not all meet: {named.message}")


if __name__ == "__main__":
    main()
