"""`python -m pipeline.metrics` prints all registered metrics, as a table in Markdown."""

from collections.abc import Callable

from pipeline.runtime.command_line import Parser
from pipeline.runtime.program import run_program


def _command() -> Callable[[], None]:
    from pipeline.metrics.registry import table

    def run() -> None:
        Parser(prog="metrics", description="Print all registered metrics, as a table in Markdown.").parse_args()
        print(table())

    return run


if __name__ == "__main__":
    run_program(_command)
