"""What our command lines share: a parser whose errors are one sentence, and an exit with one."""

import argparse
import sys
from typing import NoReturn

from pipeline.runtime.text import printable_lines

EXIT_FAILED, EXIT_BAD_ARGUMENTS = 1, 2


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        exit_with(f"error: {message.rstrip('.')}; see {self.prog} --help.", EXIT_BAD_ARGUMENTS)


def exit_with(message: str, code: int) -> NoReturn:
    """Print a message on standard error and exit with a code."""
    print(printable_lines(message), file=sys.stderr)
    sys.exit(code)
