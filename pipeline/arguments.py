"""The command line before Hydra sees it: home folders, ``resume=``, and ranks that must not write."""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from pipeline.errors import ConfigError
from pipeline.processes import is_first

RESUME = "resume"


@contextmanager
def hydra_arguments(arguments: Sequence[str]) -> Iterator[list[str]]:
    """The arguments as Hydra is to see them.

    * ``key=~/folder`` has the home folder spelled out: shells leave it alone, Hydra's grammar refuses it.
    * ``resume=FOLDER`` stands for the command that the run in the folder was started with, in that folder; what follows
      on the command line is added to it.
    * In a rank that torchrun or srun has started beside the first, Hydra's own folder, dumps and log go nowhere.

    Raises:
        ConfigError: ``resume`` names a folder that holds no run.
    """
    arguments = [_expand_home(argument) for argument in arguments]
    resumed = [argument for argument in arguments if argument.startswith(f"{RESUME}=")]
    if resumed:
        rest = [argument for argument in arguments if argument not in resumed]
        arguments = [*_as_started(resumed[-1].partition("=")[2]), *rest]
    if is_first():
        yield arguments
        return
    with tempfile.TemporaryDirectory(prefix="dnc-rank-") as nowhere:
        silent = [f"hydra.run.dir={nowhere}", f"hydra.sweep.dir={nowhere}", "hydra.output_subdir=null"]
        yield [*arguments, *silent, "hydra/job_logging=none", "hydra/hydra_logging=none"]


def _expand_home(argument: str) -> str:
    key, equals, value = argument.partition("=")
    return f"{key}={os.path.expanduser(value)}" if equals and value.startswith("~") else argument


def _as_started(folder: str) -> list[str]:
    """The arguments of the command that made a run folder, from what Hydra keeps there."""
    run = Path(folder).absolute()
    try:
        overrides = yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text())
        hydra = yaml.safe_load((run / ".hydra" / "hydra.yaml").read_text())["hydra"]
        sources = hydra["runtime"]["config_sources"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{RESUME}={folder} is not the folder of a run ({type(error).__name__} reading {run / '.hydra'}); "
            "allowed: a folder with .hydra/overrides.yaml and .hydra/hydra.yaml."
        ) from error
    own = [source["path"] for source in sources if source["provider"] == "command-line"]
    flags = ["--config-dir", own[0]] if own else []
    return [*flags, *(str(override) for override in overrides), f"hydra.run.dir={quoted(str(run))}"]


def quoted(value: str) -> str:
    """A value as Hydra's grammar reads it, whatever characters it holds."""
    # A backslash is one, except before a quotation mark, the closing one included.
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return "'" + escaped + "\\" * trailing + "'"
