"""``python -m pipeline``, and the console command ``dnc``."""

import sys

from pipeline.runtime.interruption import interruption
from pipeline.runtime.startup import begin
from pipeline.views.html import SUBCOMMANDS


def main() -> None:
    """Run the command line."""
    begin()
    if sys.argv[1:2] and sys.argv[1] in SUBCOMMANDS:
        from pipeline.views.html.command import main as run
    else:
        # Imports take seconds, and an import that is broken off leaves nothing to end a run with.
        with interruption.deferred():
            interruption.listen()
            from pipeline.cli.app import main as run
    run()
    interruption.ignore_signals()


if __name__ == "__main__":
    main()
