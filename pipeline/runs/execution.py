"""One run from its configuration to its closed record."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pipeline.config import Config
from pipeline.runs.inputs import Inputs
from pipeline.runs.outcome import Outcome
from pipeline.runs.processes import processes
from pipeline.runs.protocols import perform
from pipeline.runs.recording import reached
from pipeline.runs.report import ended_summary, files_left, final_summary, initial_summary, print_results
from pipeline.runs.run import Run
from pipeline.runs.training.acceleration import determinism, float32_products
from pipeline.runtime import ranks
from pipeline.runtime.console import QUIET, VERBOSE, console, verbosity
from pipeline.runtime.errors import RunError
from pipeline.runtime.files import remove_temporaries
from pipeline.runtime.startup import collect_as_usual
from pipeline.storage.ownership import FOLDERS, remove_intermediate
from pipeline.storage.record import read_record, write_summary
from pipeline.storage.summary import COMPLETED
from pipeline.storage.tensors import write_tensors
from pipeline.views.trackers import track

log = logging.getLogger(__name__)


def execute(config: Config, inputs: Inputs, folder: Path) -> None:
    """Run one validated configuration on its inputs in ``folder``, with all the processes it asks for.

    The first process writes the folder; the others only take part in the work.

    Raises:
        RunError: for a reason the user can mend; the summary's status is then ``failed``.
        Interrupted: a signal asked the run to end; its status is then ``interrupted``.
    """
    collect_as_usual()
    _quiet_libraries()
    log.debug("run in %s on %s, %d device(s)", folder, config.device, config.trainer.devices)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    trainer = config.trainer
    with (
        determinism(trainer.deterministic),
        float32_products(trainer.precision, config.device),
        processes(config, folder) as shared,
    ):
        run = Run.start(config, inputs, shared)
        if ranks.is_first():
            _run_first_rank(run)
        else:
            _perform(run)
        ranks.barrier()


def _run_first_rank(run: Run) -> None:
    """Perform the protocol and write everything that is to be found in the folder afterwards."""
    config, folder, record = run.config, run.folder, run.record
    remove_temporaries(folder / name for name in FOLDERS)
    summary = initial_summary(run)
    write_summary(folder, summary)
    tracker = track(config.logger, folder, asdict(config), run.protocol.name, record.asides, reached(config))
    record.listeners.append(tracker.rows)
    figures: list[Path] = []
    try:
        outcome = _perform(run)
        record.save()
        skipped = write_tensors(folder, outcome.tensors(), config.record.max_tensor_mb)
        summary = final_summary(run, outcome, skipped)
        if config.record.figures:
            with run.stopwatch.time("figures"):
                figures = _draw(outcome, summary, folder)
        write_summary(folder, summary)
        # All of it stands in tensors.safetensors and record.csv.
        remove_intermediate(folder)
    except BaseException as error:
        summary = ended_summary(run, "failed" if isinstance(error, Exception) else "interrupted", error)
        with suppress(OSError):  # what ended the run may be a full disk; that error is the one to show
            if record.rows:
                record.save()
            write_summary(folder, summary)
        raise
    finally:
        if tracker.waits_for_a_server and config.logger.mode == "online":
            log.info("wandb: sending what is left (at most %g s)", config.logger.patience)
        tracker.finish(summary, figures, failed=summary["status"] != COMPLETED)
    log.debug("seconds of each stage: %s", {name: round(taken, 2) for name, taken in run.stopwatch.seconds.items()})
    _announce(outcome, summary, folder)


def _draw(outcome: Outcome, summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """The overview of the record, and a figure of every section that brings one."""
    from pipeline.views.figures import run_figure, save_figure

    record = read_record(folder)
    figures = {"collapse": run_figure(record, summary)}
    figures |= {section.name: section.figure(record, summary) for section in outcome.sections}
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    return [path for name, figure in drawn.items() for path in save_figure(figure, folder / "figures", name)]


def _announce(outcome: Outcome, summary: Mapping[str, Any], folder: Path) -> None:
    """Say how the run ended, and where everything is."""
    if verbosity() == QUIET:
        print(f"{summary['title']}: {folder}", flush=True)
    else:
        print_results(outcome, summary, console())
    for line in files_left(folder):
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
        words = ("can't allocate memory", "not enough memory", "out of memory", "_STATUS_ALLOC_FAILED")
        short = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words)
        if isinstance(error, RunError) or not short:
            _explain_refusal(run, error)
            raise
        config, stage = run.config, run.stopwatch.current
        if stage in ("train_backbone", "extract_features"):
            advice = f"a smaller backbone.batch_size (now {config.backbone.batch_size}), data.image_size or "
            advice += "data.samples_per_class"
        elif run.protocol.head is None:
            advice = "smaller settings"
        else:
            advice = f"a smaller descent.seeds (now {config.descent.seeds}) or head.width (now {config.head.width})"
        raise RunError(f"out of memory on {config.device.type} in {stage}: {advice} usually helps.") from error


def _explain_refusal(run: Run, error: Exception) -> None:
    """Raise RunError if `trainer.deterministic` has refused an operation (PyTorch's error goes on about its own)."""
    operation, sign, _ = str(error).partition(" does not have a deterministic implementation")
    if sign and not isinstance(error, RunError):
        raise RunError(
            f"trainer.deterministic=true refuses {operation.split()[-1]} in {run.stopwatch.current}, which has no "
            f"deterministic algorithm on {run.config.device.type}; trainer.deterministic=false or "
            "trainer.accelerator=cpu helps."
        ) from error


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
