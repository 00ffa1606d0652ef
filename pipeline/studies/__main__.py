"""``python -m pipeline.studies``, the command behind ``scripts/reproduce``."""

from pipeline.runtime.interruption import interruption
from pipeline.runtime.startup import begin


def main() -> None:
    """Run the command line."""
    begin()
    # Imports take seconds, and an import that is broken off leaves nothing to end with.
    with interruption.deferred():
        interruption.listen()
        from pipeline.studies.engine.command import main as run
    run()
    interruption.ignore_signals()


if __name__ == "__main__":
    main()
