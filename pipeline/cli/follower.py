"""``python -m pipeline.cli.follower``: a process that another one of the same run started on this machine."""

import logging
import os
import sys

from pipeline.runtime.errors import RunError
from pipeline.runtime.interruption import Interrupted
from pipeline.runtime.startup import begin


def main() -> None:
    """Take part in the run described on standard input."""
    begin()
    rank = os.environ["RANK"]
    logging.basicConfig(level=logging.WARNING, format=f"rank {rank}: %(message)s")
    from pipeline.runs.execution import execute
    from pipeline.runs.inputs import prepare
    from pipeline.runs.processes import read_order

    config, folder = read_order()
    try:
        execute(config, prepare(config), folder)
    except RunError as error:
        print(f"rank {rank}: error: {error}", file=sys.stderr)
        sys.exit(1)
    except Interrupted as stop:
        sys.exit(stop.exit_code)


if __name__ == "__main__":
    main()
