"""``python -m pipeline``, and the console command ``dnc``."""

import os
import sys

from pipeline.runtime.interruption import interruption
from pipeline.views.html import SUBCOMMANDS


def main() -> None:
    """Run the command line."""
    # Read when PyTorch loads its thread pool, hence before the import. Waiting threads that spin make a step up to 27
    # times slower as soon as another process wants their core; sleeping ones cost a few per cent when alone.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Read when CUDA starts; without it no cuBLAS product is deterministic (trainer.deterministic).
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
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
