"""What our command lines share: a parser whose errors are one sentence, and an exit with one."""

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from pipeline.runtime.text import printable_lines

EXIT_FAILED, EXIT_BAD_ARGUMENTS = 1, 2
CALLED_AS = "DNC_CALLED_AS"
"""Environment variable in which a script that starts our programs says how it calls the command."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        exit_with(f"error: {message.rstrip('.')}; see {self.prog} --help.", EXIT_BAD_ARGUMENTS)


def exit_with(message: str, code: int) -> NoReturn:
    """Print a message on standard error and exit with a code."""
    print(printable_lines(message), file=sys.stderr)
    sys.exit(code)


def own_command() -> str:
    """The command as it was called, to be pasted with other arguments: scripts/run, python -m pipeline, dnc."""
    if told := os.environ.get(CALLED_AS):
        return told
    program = Path(sys.argv[0])
    if program.name == "__main__.py" and "pipeline" in program.parts:
        return f"{shlex.quote(_short(Path(sys.orig_argv[0])))} -m pipeline"
    return shlex.quote(_short(program)) if program.name == "dnc" else "dnc"


def installed_command(name: str) -> str:
    """Another command of the same installation, to be pasted, whether it is on the PATH or not."""
    beside = Path(sys.executable).with_name(name)
    return shlex.quote(_short(beside)) if beside.exists() else name


def _short(program: Path) -> str:
    """A program as one would type it: by its name if the PATH has it, else from the working directory."""
    if (found := shutil.which(program.name)) and (program.name == str(program) or Path(found) == program):
        return program.name
    try:
        return str(program.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(program)
