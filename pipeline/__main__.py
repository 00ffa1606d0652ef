"""``python -m pipeline``, and the console command ``dnc``."""

import sys
from collections.abc import Callable

from pipeline.runtime.program import run_program
from pipeline.views.html import SUBCOMMANDS


def main() -> None:
    """Run the command line."""
    run_program(_command)


def _command() -> Callable[[], None]:
    if sys.argv[1:2] and sys.argv[1] in SUBCOMMANDS:
        from pipeline.views.html.command import main as run
    elif "--version" in sys.argv[1:]:
        from pipeline.runtime.versions import print_versions as run
    elif "-sc" in sys.argv and any(word.startswith("query=") for word in sys.argv):
        from pipeline.cli.completion import main as run
    else:
        from pipeline.cli.app import main as run
    return run


if __name__ == "__main__":
    main()
