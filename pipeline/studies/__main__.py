"""``python -m pipeline.studies``, the command behind ``scripts/reproduce``."""

from collections.abc import Callable

from pipeline.runtime.program import run_program


def main() -> None:
    """Run the command line."""
    run_program(_command)


def _command() -> Callable[[], None]:
    from pipeline.studies.engine.command import main as run

    return run


if __name__ == "__main__":
    main()
