"""What Hydra is called with: our flags taken out, ``resume=`` spelled out, ranks that must not write kept from it."""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.cli.arguments import readable
from pipeline.cli.sweeps import is_sweep, sweep_as_started
from pipeline.cli.trust import check_kept
from pipeline.config.overrides import quoted
from pipeline.config.paths import absolute_override, elsewhere, settled_paths
from pipeline.runs.launches import is_first
from pipeline.runtime.console import QUIET, VERBOSE, showing
from pipeline.runtime.errors import ConfigError
from pipeline.storage.reading import Unreadable
from pipeline.storage.settings_files import kept_config, kept_hydra, kept_overrides

log = logging.getLogger(__name__)

RESUME = "resume"
SHOWN = {"-q": QUIET, "--quiet": QUIET, "-v": VERBOSE, "--verbose": VERBOSE}
"""Flags that Hydra does not have, and how much they let be shown."""


@contextmanager
def hydra_arguments(arguments: Sequence[str]) -> Iterator[list[str]]:
    """The arguments as Hydra is to see them.

    * ``--quiet`` and ``--verbose`` are taken out, and hold meanwhile.
    * They are made readable, or refused (`pipeline.cli.arguments`).
    * ``resume=FOLDER`` stands for the command that the run, or the multirun, in the folder was started with, in that
      folder; what follows on the command line is added to it. Relative paths mean where that command was given.
    * In a rank that torchrun or srun has started beside the first, Hydra's own folder, dumps and log go nowhere.

    Raises:
        ConfigError: ``resume`` names a folder that holds no run, or an argument is refused.
    """
    shown = {SHOWN[argument] for argument in arguments if argument in SHOWN}
    if len(shown) > 1:
        raise ConfigError("--quiet and --verbose contradict each other; allowed: one of them.")
    arguments = [argument for argument in arguments if argument not in SHOWN]
    if line := os.environ.get("COMP_LINE"):  # a shell asks how the line may go on
        os.environ["COMP_LINE"] = " ".join(word for word in line.split(" ") if word not in SHOWN)
    with showing(shown.pop() if shown else None), _for_hydra(arguments) as for_hydra:
        yield for_hydra


@contextmanager
def _for_hydra(arguments: Sequence[str]) -> Iterator[list[str]]:
    resumed = [argument for argument in arguments if argument.startswith(f"{RESUME}=")]
    if resumed:
        rest = [argument for argument in arguments if argument not in resumed]
        folder = resumed[-1].partition("=")[2]
        sweep = Path(folder).expanduser().absolute()
        started = sweep_as_started(sweep, rest) if is_sweep(sweep) else _as_started(folder)
        arguments = [*started, *rest]
    arguments = readable(list(arguments))
    if is_first():
        yield arguments
        return
    with tempfile.TemporaryDirectory(prefix="dnc-rank-") as nowhere:
        silent = [f"hydra.run.dir={nowhere}", f"hydra.sweep.dir={nowhere}", "hydra.output_subdir=null"]
        yield [*arguments, *silent, "hydra/job_logging=none", "hydra/hydra_logging=none"]


def _as_started(folder: str) -> list[str]:
    """The arguments of the command that made a run folder, from what Hydra keeps there; see `pipeline.cli.trust`."""
    run = Path(os.path.abspath(Path(folder).expanduser()))
    try:
        overrides, hydra = kept_overrides(run), kept_hydra(run)
    except Unreadable as error:
        raise _no_run(folder, str(error)) from error
    runtime = (hydra or {}).get("runtime") or {}
    sources = runtime.get("config_sources")
    if overrides is None or sources is None:
        lacking = "overrides.yaml is not there" if overrides is None else "hydra.yaml does not name its sources"
        raise _no_run(folder, lacking)
    own = [source["path"] for source in sources if source["provider"] == "command-line"][:1]
    check_kept(run, overrides, own)
    flags = ["--config-dir", *own] if own else []
    overrides = _paths_as_started(overrides, run, runtime.get("cwd"))
    return [*flags, *overrides, f"hydra.run.dir={quoted(str(run))}"]


def _no_run(folder: str, why: str) -> ConfigError:
    return ConfigError(
        f"{RESUME}={folder} is not the folder of a run ({why}); allowed: a folder with .hydra/overrides.yaml and "
        ".hydra/hydra.yaml."
    )


def _paths_as_started(overrides: list[str], run: Path, cwd: object) -> list[str]:
    """The arguments of a run, in which relative paths mean the folder where its command was given."""
    if not isinstance(cwd, str) or not elsewhere(place := Path(cwd)):
        return overrides
    try:
        config = kept_config(run)
    except Unreadable as error:
        log.debug("%s: %s", run, error)
        config = None
    overrides = [absolute_override(override, place) for override in overrides]
    said = {override.partition("=")[0].lstrip("+") for override in overrides}
    settled = settled_paths(config, place) if isinstance(config, dict) else ()  # those in files of the user's own
    return [*overrides, *(override for override in settled if override.partition("=")[0] not in said)]
