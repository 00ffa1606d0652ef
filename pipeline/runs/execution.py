"""One run from its configuration to its closed record."""

import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pipeline.config import Config
from pipeline.runs.inputs import Inputs
from pipeline.runs.processes import processes
from pipeline.runs.protocols import perform
from pipeline.runs.report import closing, left_behind, opening, print_verdict
from pipeline.runs.run import Outcome, Run
from pipeline.runs.training.acceleration import determinism
from pipeline.runtime import ranks
from pipeline.runtime.console import QUIET, VERBOSE, console, verbosity
from pipeline.runtime.errors import RunError
from pipeline.runtime.files import sweep
from pipeline.storage.record import COMPLETED, Record, read_record, write_summary, write_tensors
from pipeline.storage.stages import CHECKPOINT, STAGES, before
from pipeline.views.figures import run_figure, save_figure
from pipeline.views.wandb import track

log = logging.getLogger(__name__)


def execute(config: Config, inputs: Inputs, folder: Path) -> None:
    """Run one validated configuration on its inputs in ``folder``, with all the processes it asks for.

    The first process writes the folder; the others only take part in the work.

    Raises:
        RunError: for a reason the user can mend; the summary's status is then ``failed``.
        Interrupted: a signal asked the run to end; its status is then ``interrupted``.
    """
    _quiet_libraries()
    log.debug("run in %s on %s, %d device(s)", folder, config.device, config.trainer.devices)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    with determinism(config.trainer.deterministic), processes(config, folder) as shared:
        run = Run(config, inputs, shared, Record(shared))
        if ranks.is_first():
            _lead(run)
        else:
            _perform(run)
        ranks.barrier()


def _lead(run: Run) -> None:
    """Perform the protocol and write everything that is to be found in the folder afterwards."""
    config, folder, record = run.config, run.folder, run.record
    sweep(folder)
    summary = opening(run)
    write_summary(folder, summary)
    tracker = track(config.logger, folder, asdict(config), config.protocol.name)
    record.listeners.append(tracker.rows)
    figures: list[Path] = []
    try:
        outcome = _perform(run)
        record.save()
        skipped = write_tensors(
            folder, outcome.head.labels, outcome.head.features, outcome.head.weights, config.record.max_tensor_mb
        )
        summary = closing(run, outcome, skipped)
        if config.record.figures:
            with run.stopwatch.time("figures"):
                figures = save_figure(run_figure(read_record(folder), summary), folder / "figures", "collapse")
        write_summary(folder, summary)
        # All of it stands in tensors.safetensors and record.csv.
        shutil.rmtree(folder / STAGES, ignore_errors=True)
        before(folder / CHECKPOINT).unlink(missing_ok=True)
    except BaseException as error:
        status = "failed" if isinstance(error, Exception) else "interrupted"
        summary = opening(run) | {"status": status, "error": f"{type(error).__name__}: {error}"}
        with suppress(OSError):  # what ended the run may be a full disk; that error is the one to show
            if record.rows:
                record.save()
            write_summary(folder, summary)
        raise
    finally:
        if tracker.channels and config.logger.mode == "online":
            log.info("wandb: sending what is left (at most %g s)", config.logger.patience)
        tracker.finish(summary, figures, failed=summary["status"] != COMPLETED)
    log.debug("seconds of each stage: %s", {name: round(taken, 2) for name, taken in run.stopwatch.seconds.items()})
    _announce(summary, folder)


def _announce(summary: Mapping[str, Any], folder: Path) -> None:
    """Say how the run ended, and where everything is."""
    if verbosity() == QUIET:
        print(f"{summary['verdict']['text']}: {folder}", flush=True)
    else:
        print_verdict(summary, console())
    for line in left_behind(folder):
        log.info("%s", line)


def _perform(run: Run) -> Outcome:
    with _advice_on_memory(run):
        return perform(run)


@contextmanager
def _advice_on_memory(run: Run) -> Iterator[None]:
    """Say which stage was too large, and what makes it smaller.

    Raises:
        RunError: instead of PyTorch's or Python's own errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = ("can't allocate memory", "not enough memory", "out of memory")
        short = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words)
        if isinstance(error, RunError) or not short:
            raise
        config, stage = run.config, run.stopwatch.current
        if stage in ("train_backbone", "extract_features"):
            advice = f"a smaller backbone.batch_size (now {config.backbone.batch_size}), data.image_size or "
            advice += "data.samples_per_class"
        else:
            advice = f"a smaller descent.seeds (now {config.descent.seeds}) or head.width (now {config.head.width})"
        raise RunError(f"out of memory on {config.device.type} in {stage}: {advice} usually helps.") from error


def _quiet_libraries() -> None:
    """Silence font subsetting and, unless ``--verbose``, addresses of processes and a deprecation that is Lightning's
    to mend; warnings stay.
    """
    logging.raiseExceptions = False  # a log file on a full disk is no reason for a traceback
    for name in ("fontTools", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("torch.distributed").setLevel(logging.INFO if verbosity() == VERBOSE else logging.WARNING)
    if verbosity() == VERBOSE:
        return
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
