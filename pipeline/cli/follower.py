"""``python -m pipeline.cli.follower``: a process that another one of the same run started on this machine."""

import logging
import os
import sys

from omegaconf.errors import OmegaConfBaseException

from pipeline.runtime.errors import ConfigError, RunError
from pipeline.runtime.interruption import Interrupted
from pipeline.runtime.program import ended_in_a_sentence
from pipeline.runtime.startup import begin


def main() -> None:
    """Take part in the run described on standard input."""
    begin()
    rank = os.environ.get("RANK", "")
    if not rank.isdecimal():
        raise ConfigError(f"RANK={rank} is no rank; allowed: this process is started by a run, see trainer.devices.")
    logging.basicConfig(level=logging.WARNING, format=f"rank {rank}: %(message)s")
    from pipeline.runs.execution import execute
    from pipeline.runs.inputs import prepare
    from pipeline.runs.processes import read_order

    try:
        config, folder = read_order()
    except (ValueError, KeyError, TypeError, RecursionError, OmegaConfBaseException) as error:
        raise ConfigError("standard input holds no order of a run; allowed: what a run sends it.") from error
    try:
        execute(config, prepare(config), folder)
    except RunError as error:
        print(f"rank {rank}: error: {error}", file=sys.stderr)
        sys.exit(1)
    except Interrupted as stop:
        sys.exit(stop.exit_code)


if __name__ == "__main__":
    with ended_in_a_sentence():
        main()
