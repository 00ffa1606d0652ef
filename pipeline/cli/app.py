"""The command ``dnc`` = ``python -m pipeline``: validate, run a protocol, close the record."""

import io
import logging
import os
import shlex
import signal
import sys
import warnings
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.cli.arguments import flags_of
from pipeline.cli.cluster import (
    failures_name_their_log,
    interruptions_requeue,
    lost_job,
    quiet_beside_first,
    was_requeued,
)
from pipeline.cli.invocation import hydra_arguments
from pipeline.cli.shortcuts import shortcuts
from pipeline.cli.sweeps import completed_jobs_skipped
from pipeline.config import Config, conf_folder
from pipeline.config.messages import explain, one_line, register
from pipeline.runs.checking import checked
from pipeline.runs.door import (
    Admission,
    FolderInUse,
    admit,
    check_folder,
    is_completed,
    refuse_completed,
    refuse_others,
)
from pipeline.runs.launches import is_first
from pipeline.runtime.command_line import EXIT_BAD_ARGUMENTS, EXIT_FAILED, exit_with, own_command
from pipeline.runtime.console import escape_what_cannot_be_encoded, held_back, say, set_levels
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.runtime.interruption import Interrupted, interruption, requeue
from pipeline.runtime.program import sentence_of

log = logging.getLogger(__name__)

EXIT_BAD_CONFIG = EXIT_BAD_ARGUMENTS


def main() -> None:
    """Console entry point; exits 0 done, 1 failed, 2 bad configuration, 130 interrupted, 143 terminated."""
    interruption.listen()
    try:
        interruption.exit_if_signalled()
        escape_what_cannot_be_encoded()
        register()
        # Hydra then hands us its errors instead of printing them its own way and exiting with 1.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        warnings.filterwarnings("error", message="provider=.* is not available")  # of hydra.searchpath
        with hydra_arguments(sys.argv[1:]) as arguments:
            sys.argv[1:] = arguments
            _run_or_show(arguments)
    except Interrupted as stop:
        requeue(stop, first=is_first())
        _exit(_farewell(stop), stop.exit_code)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:  # some of Hydra's are OSErrors
        _exit(f"error: {explain(error)}", EXIT_BAD_CONFIG)
    except (RunError, OSError) as error:
        _fail(error)
    except Exception as error:
        if lost := lost_job(error):
            _exit(f"error: {lost}", EXIT_FAILED)
        if Session.begun:  # a bug of ours, whose traceback -v shows
            told, code = sentence_of(error)
            _exit(f"error: {told}", code)
        _exit(f"error: {explain(error)}", EXIT_BAD_CONFIG)


class Failed(BaseException):
    """The error of a run on its way past Hydra, which would announce it with a line of its own."""


def _run_or_show(arguments: list[str]) -> None:
    """Let Hydra do what is asked: run, or show something and stop."""
    run = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="main")(job)
    flags = flags_of(arguments)
    if flags.cfg in ("job", "all") and flags.package is None:
        shown = io.StringIO()
        with redirect_stdout(shown):
            run()
        _ours(OmegaConf.create(shown.getvalue()))
        print(shown.getvalue(), end="")
        return
    try:
        with completed_jobs_skipped(), shortcuts(flags):
            run()
    except Failed as failure:
        raise failure.__cause__ from None


class Session:
    """What this process is doing, for those whom Hydra calls: the run it has leave for, the folder of the one begun."""

    admission: ClassVar[Admission | None] = None
    said: ClassVar[list[logging.LogRecord]] = []  # before the run had its log
    begun: ClassVar[Path | None] = None  # what fails from now on is not the configuration
    sweep: ClassVar[Path | None] = None  # the multirun's folder, if the run is one of its jobs


def _fail(error: RunError | OSError) -> NoReturn:
    """Exit with the reason why a run cannot go on (or, of a file, not even begin)."""
    if isinstance(error, RunError):
        _exit(f"error: {error}", EXIT_FAILED)
    code = EXIT_FAILED if Session.begun else EXIT_BAD_CONFIG
    _exit(f"error: {error.filename or 'a file'}: {error.strerror or error}{_way_back()}.", code)


def _farewell(stop: Interrupted) -> str:
    word = "interrupted" if stop.number == signal.SIGINT else f"ended by {stop}"
    return f"{word}{_way_back()}"


def _way_back() -> str:
    """How to go on with a run that has begun."""
    if Session.begun is None:
        return ""
    resume = shlex.quote(f"resume={Session.sweep or Session.begun}")
    return f"; what is done is kept, and goes on with: {own_command()} {resume}"


def _exit(message: str, code: int) -> NoReturn:
    if not is_first():
        sys.exit(code)
    exit_with(one_line(message), code)


class ValidateFirst(Callback):
    """Hydra callback: refuse a bad configuration, and data that are not right, before the run's folder is made."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave in `Session` the admission of the job that follows."""
        folder = Path(config.hydra.run.dir)
        try:
            check_folder(folder)
            refuse_completed(folder)  # before anything is said of a configuration that goes on with it
            with held_back() as Session.said:
                Session.admission = admit(_ours(config), folder)
        except Exception as error:
            log.debug("What was refused:", exc_info=True)
            # Hydra turns a callback's exceptions into warnings; an exit it lets through.
            _exit(f"error: {explain(error)}", EXIT_BAD_CONFIG)


def _ours(config: DictConfig) -> Config:
    """The validated configuration without Hydra's own part."""
    return checked(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))


@interruptions_requeue()
def job(cfg: DictConfig) -> None:
    """Hydra's task: one run in ``hydra.runtime.output_dir``."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    os.chdir(HydraConfig.get().runtime.cwd)  # paths mean where the command was given; with hydra.job.chdir too
    set_levels()
    if Session.admission is not None:
        admission, Session.admission = Session.admission, None
        say(Session.said)
        try:
            _run(replace(admission, folder=folder))
        except Exception as error:
            raise Failed from error
        return
    # A job of a multirun: its folder exists already.
    interruption.listen()  # in a Slurm job, main() was not here
    Session.sweep = Path(HydraConfig.get().sweep.dir).absolute()
    quiet_beside_first()
    if was_requeued() and is_completed(folder):
        log.info("%s is completed already, and skipped", folder)
        return
    try:
        refuse_completed(folder)
        refuse_others(folder, by_settings=False)  # Hydra has just written settings of ours
        admission = admit(checked(cfg), folder)
    except FolderInUse:
        raise
    except (ConfigError, OmegaConfBaseException):
        _remove_if_unused(folder)
        raise
    try:
        _run(admission)
    except Exception as error:
        # Hydra tells at the end of the multirun, and of the first only; a submitted job has a log of its own.
        if "SUBMITIT_EXECUTOR" not in os.environ:
            log.error("%s: %s", folder, one_line(explain(error)))
        raise


def _run(admission: Admission) -> None:
    Session.begun = admission.folder
    try:
        with failures_name_their_log():
            admission.perform()
    except Exception:
        log.debug("What ended the run:", exc_info=True)
        raise


def _remove_if_unused(folder: Path) -> None:
    """Remove what Hydra made for a job (of a multirun) that never began."""
    from pipeline.storage.ownership import remove_settings  # here, because it loads PyTorch

    if is_first() and not (folder / "summary.json").exists():
        remove_settings(folder)
